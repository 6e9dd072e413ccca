"""`print` and `logging` in a body: silent on a replay, live with run and step (orchestrator E.5 no. 84)."""

import io
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.workflow.ambient import Environment
from stepwell.workflow.said import workflow_logger
from tests.workflow.bodies import BodyHost, of


class Kept(logging.Handler):
    """The records of one logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("shop")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def in_task(host: BodyHost, act: Any, name: str) -> None:
    async def child() -> None:
        act()

    async def body() -> None:
        await host.loop.create_task(child(), name=name)

    host.run(body)


def test_no_84_print_is_silent_on_a_replay(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    of(lambda: print("hello", "world", sep="-"))
    of(lambda: print("again"), replaying=True)
    of(lambda: print("error", file=sys.stderr, flush=True))
    of(lambda: print("error again", file=sys.stderr), replaying=True)
    print("outside", 1)
    out, err = capsys.readouterr()
    assert (out, err) == ("[r1] hello-world\noutside 1\n", "[r1] error\n")


def test_print_tells_the_step_s_path(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    in_task(BodyHost(), lambda: print("hello", end="!"), "pack")
    assert capsys.readouterr().out == "[r1 pack] hello!"


def test_print_into_a_buffer_is_a_value_like_others(environment: Environment) -> None:
    def body() -> str:
        text = io.StringIO()
        print("a", "b", file=text)
        return text.getvalue()

    assert of(body) == of(body, replaying=True) == "a b\n"


def test_print_refuses_what_it_always_did(environment: Environment) -> None:
    wrong: Any = {"sep": 3}
    with pytest.raises(TypeError, match="sep"):
        of(lambda: print("a", **wrong))


def test_no_84_logging_is_silent_on_a_replay_and_tells_run_and_step(environment: Environment, kept: Kept) -> None:
    logger = logging.getLogger("shop")
    of(lambda: logger.warning("not %s", "again"), replaying=True)
    assert kept.records == []
    in_task(BodyHost(), lambda: logger.warning("%d %% of %s", 5, "all"), "pack/1")
    in_task(BodyHost(), lambda: logger.warning("100%"), "pack")
    assert kept.texts == ["[r1 pack%2F1] 5 % of all", "[r1 pack] 100%"]
    assert [(vars(one)["run_id"], vars(one)["step"]) for one in kept.records] == [("r1", "pack%2F1"), ("r1", "pack")]


def test_a_log_has_the_real_time_and_the_body_s_line(environment: Environment, kept: Kept) -> None:
    before = time.time()
    of(lambda: logging.getLogger("shop").warning("now"))
    (record,) = kept.records
    assert before - 1 <= record.created <= time.time() + 1
    assert 0 <= record.relativeCreated < 3_600_000
    assert record.pathname == __file__


def test_logging_outside_of_bodies_is_untouched(environment: Environment, kept: Kept) -> None:
    logging.getLogger("shop").warning("as %s", "ever")
    assert kept.texts == ["as ever"]
    assert "run_id" not in vars(kept.records[0])


def test_a_message_that_is_data_stays_so(environment: Environment, kept: Kept) -> None:
    of(lambda: logging.getLogger("shop").warning({"order": 1}))
    of(lambda: logging.getLogger("shop").warning(ValueError("text")))
    assert kept.records[0].msg == {"order": 1}
    assert kept.texts[1] == "[r1] text"


def test_a_handler_may_do_what_it_likes(environment: Environment, tmp_path: Path) -> None:
    logger = logging.getLogger("shop")
    handler = logging.FileHandler(tmp_path / "shop.log", delay=True)
    logger.addHandler(handler)
    try:
        of(lambda: logger.warning("written"))
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "shop.log").read_text() == "[r1] written\n"


@pytest.mark.parametrize("installed", [True, False])
def test_the_logger_of_a_run_does_the_same(kept: Kept, installed: bool, request: pytest.FixtureRequest) -> None:
    if installed:
        request.getfixturevalue("environment")
    logging.getLogger("stepwell.workflow.shop:checkout").addHandler(kept)
    host, silent = BodyHost(), BodyHost(replaying=True)
    in_task(host, lambda: workflow_logger("shop:checkout", host).warning("a %s", "b", extra={"order": 7}), "pack")
    in_task(silent, lambda: workflow_logger("shop:checkout", silent).error("again"), "pack")
    logging.getLogger("stepwell.workflow.shop:checkout").removeHandler(kept)
    (record,) = kept.records
    assert record.getMessage() == "[r1 pack] a b"
    assert (vars(record)["run_id"], vars(record)["step"], vars(record)["order"]) == ("r1", "pack", 7)
    assert (record.pathname, record.name) == (__file__, "stepwell.workflow.shop:checkout")

"""A pump that takes over its limit is reported with workflow, run and the user's line, while it is still running."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from stepwell.workflow import ambient
from stepwell.workflow.ambient import Environment
from stepwell.workflow.loop import WorkflowLoop
from stepwell.workflow.seams import original_of
from stepwell.workflow.watchdog import Watchdog
from tests.workflow.bodies import BodyHost


class Reports(logging.Handler):
    """What the watchdog told, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.more = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.more:
            self.texts.append(record.getMessage())
            self.more.notify_all()

    def count(self, number: int) -> bool:
        with self.more:
            return self.more.wait_for(lambda: len(self.texts) >= number, 10)


@pytest.fixture
def reports() -> Iterator[Reports]:
    handler, logger = Reports(), logging.getLogger("stepwell.workflow")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog(limit_ms=50, report_every_ms=200)
    yield made
    made.close()


def wait(until: Callable[[], bool]) -> None:
    """For what no event tells of."""
    end = time.monotonic() + 10
    while not until():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_an_endless_body_is_told_of_again_and_again_with_its_line(reports: Reports) -> None:
    environment = Environment([])
    environment.watchdog = Watchdog(limit_ms=50, report_every_ms=100)
    host = BodyHost(replaying=True)
    host.around = environment

    async def body() -> None:
        while len(reports.texts) < 3:
            pass  # the line that is told

    host.run(body)
    environment.close()
    first = body.__code__.co_firstlineno
    assert len(reports.texts) == 3
    for text in reports.texts:
        assert "workflow shop:checkout, run r1" in text
        assert f"{__file__}:{first + 1} in body" in text or f"{__file__}:{first + 2} in body" in text
    spent = [int(text.split(" computed for ")[1].split()[0]) for text in reports.texts]
    assert spent[0] >= 50
    assert spent[1] - spent[0] >= 99
    assert spent[2] - spent[1] >= 99


def test_the_line_is_the_user_s_when_a_library_computes(watchdog: Watchdog, reports: Reports) -> None:
    import json

    host = BodyHost()
    environment = Environment([])
    environment.watchdog = watchdog
    host.around = environment

    async def body() -> None:
        while not reports.texts:
            json.dumps(list(range(1_000)), indent=1)

    host.run(body)
    assert f"{__file__}:" in reports.texts[0]
    assert "in body" in reports.texts[0]


def test_one_that_lets_no_other_thread_run_is_told_of_at_its_end(watchdog: Watchdog, reports: Reports) -> None:
    clock = original_of(time.perf_counter) or time.perf_counter  # it may be replaced already
    around = ambient.install(WorkflowLoop)
    around.watchdog, host = watchdog, BodyHost(replaying=True)
    host.around = around
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    try:

        async def body() -> None:
            end = clock() + 0.1
            while clock() < end:
                pass

        host.run(body)
    finally:
        sys.setswitchinterval(interval)
        ambient.uninstall(WorkflowLoop)
    assert reports.count(1)
    assert "run r1" in reports.texts[0]


def test_short_pumps_are_not_told_of(watchdog: Watchdog, reports: Reports) -> None:
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        watchdog.pump_started("shop:checkout", "r1")
        watchdog.pump_ended()
    assert reports.texts == []


def test_slow_pumps_within_the_time_between_reports_are_counted(watchdog: Watchdog, reports: Reports) -> None:
    moment = [0.0]
    watchdog._clock = lambda: moment[0]

    def pump(seconds: float) -> None:
        watchdog.pump_started("shop:checkout", "r1")
        moment[0] += seconds
        watchdog.pump_ended()

    watchdog._closed = True  # only the pumps themselves report
    for seconds in (0.06, 0.06, 0.01, 0.06, 0.4):
        pump(seconds)
    assert len(reports.texts) == 2
    assert "2 more slow pumps before it" in reports.texts[1]


def test_it_sleeps_while_nothing_is_pumped_and_wakes_for_the_next(watchdog: Watchdog, reports: Reports) -> None:
    for number in (1, 2):
        watchdog.pump_started("shop:checkout", "r1")
        assert reports.count(number)
        watchdog.pump_ended()
        wait(lambda: watchdog.asleep)


def test_there_is_no_thread_before_the_first_pump_and_none_after_close() -> None:
    before = set(threading.enumerate())

    def names() -> list[str]:
        return [one.name for one in threading.enumerate() if one not in before]

    watchdog = Watchdog()
    assert names() == []
    watchdog.pump_started("shop:checkout", "r1")
    watchdog.pump_ended()
    assert names() == ["stepwell-watchdog"]
    watchdog.close()
    watchdog.close()
    assert names() == []
    watchdog.pump_started("shop:checkout", "r1")
    watchdog.pump_ended()
    assert names() == []

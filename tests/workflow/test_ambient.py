"""Clocks, chance and ids in a body are the run's, never silently the real ones (orchestrator E.5 no. 82, 83, 85)."""

import asyncio
import builtins
import datetime
import gc
import inspect
import os
import pickle
import random
import secrets
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from time import time as early_time
from types import ModuleType
from typing import Any

import pytest

from stepwell.functions.errors import NondeterministicCall
from stepwell.workflow import ambient, clocks
from stepwell.workflow.ambient import Environment
from stepwell.workflow.loop import WorkflowLoop
from stepwell.workflow.seams import original_of
from tests.workflow.bodies import NOW_S, BodyHost, of

LOCAL = datetime.datetime.fromtimestamp(NOW_S)  # noqa: DTZ006 - the zone of the machine is what the body has, too
UTC = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC)


class Shop:
    """An attribute of a class stays what it is when it is replaced in its module."""

    clock: Any = time.time


class Moment(datetime.datetime):
    pass


CLOCKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "time": (lambda: time.time(), NOW_S),
    "time_ns": (lambda: time.time_ns(), 1_000_000_500_000_000),
    "monotonic": (lambda: time.monotonic(), NOW_S),
    "monotonic_ns": (lambda: time.monotonic_ns(), 1_000_000_500_000_000),
    "perf_counter": (lambda: time.perf_counter(), NOW_S),
    "perf_counter_ns": (lambda: time.perf_counter_ns(), 1_000_000_500_000_000),
    "process_time": (lambda: time.process_time(), NOW_S),
    "process_time_ns": (lambda: time.process_time_ns(), 1_000_000_500_000_000),
    "thread_time": (lambda: time.thread_time(), NOW_S),
    "thread_time_ns": (lambda: time.thread_time_ns(), 1_000_000_500_000_000),
    "clock_gettime": (lambda: time.clock_gettime(time.CLOCK_REALTIME), NOW_S),
    "clock_gettime_ns": (lambda: time.clock_gettime_ns(time.CLOCK_REALTIME), 1_000_000_500_000_000),
    "localtime": (lambda: time.localtime()[:6], LOCAL.timetuple()[:6]),
    "localtime of none": (lambda: time.localtime(None)[:6], LOCAL.timetuple()[:6]),
    "gmtime": (lambda: time.gmtime()[:6], UTC.timetuple()[:6]),
    "ctime": (lambda: time.ctime(), LOCAL.ctime()),
    "asctime": (lambda: time.asctime(), LOCAL.ctime()),
    "strftime": (lambda: time.strftime("%Y-%m-%d %H:%M:%S"), LOCAL.strftime("%Y-%m-%d %H:%M:%S")),
    "now": (lambda: datetime.datetime.now(), LOCAL),  # noqa: DTZ005 - bodies call it
    "now in a zone": (lambda: datetime.datetime.now(datetime.UTC), UTC),
    "now by name": (lambda: datetime.datetime.now(tz=datetime.UTC), UTC),
    "now of a subclass": (lambda: Moment.now(), LOCAL),
    "today": (lambda: datetime.datetime.today(), LOCAL),  # noqa: DTZ002 - bodies call it
    "date.today": (lambda: datetime.date.today(), LOCAL.date()),  # noqa: DTZ011 - bodies call it
    "loop.time": (lambda: asyncio.get_running_loop().time(), NOW_S),
}
CHANCE: dict[str, Callable[[], Any]] = {
    "random": lambda: random.random(),
    "randint": lambda: random.randint(1, 10**9),
    "choice": lambda: random.choice(range(10**9)),
    "sample": lambda: random.sample(range(10**9), 3),
    "gauss": lambda: random.gauss(0, 1),
    "choices by name": lambda: random.choices(range(10**9), k=3),
    "getrandbits": lambda: random.getrandbits(64),
    "randbytes": lambda: random.randbytes(8),
    "a generator of its own": lambda: random.Random().random(),
    "seed without a value": lambda: (random.seed(), random.random())[1],
    "uuid4": lambda: uuid.uuid4(),
    "uuid1": lambda: uuid.uuid1(),
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "time.sleep": (lambda: time.sleep(0), "ctx.sleep"),
    "urandom": (lambda: os.urandom(4), "ctx.random"),
    "secrets": (lambda: secrets.token_hex(4), "ctx.random"),
    "SystemRandom": (lambda: random.SystemRandom().random(), "ctx.random"),
    "input": (lambda: builtins.input(), "wait_for_signal"),
    "environ": (lambda: os.environ["PATH"], "as input"),
    "environ.get": (lambda: os.environ.get("NO_SUCH"), "as input"),
    "getenv": (lambda: os.getenv("PATH"), "as input"),
    "environ, all": (lambda: dict(os.environ), "as input"),
    "a thread": (lambda: threading.Thread(target=print).start(), "ctx.step"),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_no_82_a_clock_in_a_body_shows_the_workflow_s_time(environment: Environment, name: str) -> None:
    ask, expected = CLOCKS[name]
    assert of(ask) == expected
    assert name == "loop.time" or ask() != expected


def test_utcnow_in_a_body_is_the_workflow_s_time(environment: Environment) -> None:
    assert of(lambda: datetime.datetime.utcnow()) == UTC.replace(tzinfo=None)  # noqa: DTZ003 - bodies call it


def test_time_moves_only_when_something_is_delivered(environment: Environment) -> None:
    host = BodyHost()
    seen: list[float] = []

    async def body() -> None:
        seen.append(time.time())
        await asyncio.sleep(0)
        seen.append(time.time())
        await moment
        seen.append(time.time())

    moment = host.loop.create_future()
    host.loop.create_root(body())
    host.loop.pump()
    host.loop.now_s = NOW_S + 60
    host.loop.inside(lambda: moment.set_result(None))
    host.loop.pump()
    assert seen == [NOW_S, NOW_S, NOW_S + 60]


@pytest.mark.parametrize("name", CHANCE)
def test_no_83_chance_is_equal_on_every_replay_and_differs_between_runs(environment: Environment, name: str) -> None:
    draw = CHANCE[name]
    state = random.getstate()
    assert of(draw) == of(draw)
    assert of(draw, run_id="r1") != of(draw, run_id="r2")
    assert random.getstate() == state
    assert draw() != of(draw)


@pytest.mark.parametrize("name", REFUSED)
def test_no_85_what_cannot_be_repeated_is_refused_with_the_line_and_what_to_do(
    environment: Environment, name: str
) -> None:
    act, advice = REFUSED[name]
    line = act.__code__.co_firstlineno
    with pytest.raises(NondeterministicCall, match=rf"test_ambient\.py:{line} in <lambda>") as caught:
        of(act)
    assert advice in caught.value.hint


def test_python_itself_may_read_the_environment(environment: Environment) -> None:
    assert of(lambda: shutil.get_terminal_size(fallback=(7, 7)).columns) > 0


def test_finalizers_of_others_may_do_what_a_body_must_not(environment: Environment) -> None:
    class Foreign:
        def __del__(self) -> None:
            done.append(os.urandom(4))

    done: list[bytes] = []
    foreign: Any = Foreign()
    foreign.itself = foreign
    del foreign
    of(gc.collect)
    assert len(done) == 1


def test_a_clock_that_is_an_attribute_of_a_class_is_called_without_its_object(environment: Environment) -> None:
    class Later:
        clock: Any = time.time

    assert abs(Later().clock() - Shop().clock()) < 60
    assert of(lambda: Later().clock()) == NOW_S


def test_everything_is_itself_again_afterwards() -> None:
    def all_of_them() -> list[Any]:
        return [
            *(getattr(time, name) for name in ("time", "time_ns", "sleep", "localtime", "strftime")),
            *(datetime.datetime.now, datetime.datetime.utcnow, datetime.date.today, random.random, random.randint),
            *(random.Random.seed, uuid.uuid4, os.urandom, builtins.print, builtins.input, type(os.environ).__getitem__),
        ]

    before = all_of_them()
    ambient.install(WorkflowLoop).close()
    once = all_of_them()
    ambient.install(WorkflowLoop).close()
    assert all_of_them() == once
    assert not [one for one, other in zip(before, once, strict=True) if one == other]
    ambient.uninstall(WorkflowLoop)
    assert all_of_them() == before
    ambient.uninstall(WorkflowLoop)
    assert all_of_them() == before


def test_nothing_is_replaced_by_an_import() -> None:
    program = (
        "import time, builtins, datetime; kept = time.time, builtins.print, datetime.datetime.now\n"
        "import stepwell.workflow.ambient, stepwell.workflow.loop\n"
        "assert kept == (time.time, builtins.print, datetime.datetime.now)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# ── names that were imported before ──────────────────────────────────────────────────────────────────────────────────


def test_names_that_a_workflow_s_package_imported_before_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    package, helper = ModuleType("till"), ModuleType("till.helper")
    exec("from time import time as clock\nfrom random import randint", vars(helper))
    exec("from time import time\nfrom uuid import uuid4\ndef body(): return time(), uuid4()", vars(package))
    monkeypatch.setitem(sys.modules, "till", package)
    monkeypatch.setitem(sys.modules, "till.helper", helper)
    environment = ambient.install(WorkflowLoop)
    try:
        environment.prepare(vars(package)["body"])
        assert of(vars(package)["body"])[0] == NOW_S
        assert of(vars(helper)["clock"]) == NOW_S
        assert of(lambda: vars(helper)["randint"](1, 10**9)) == of(lambda: vars(helper)["randint"](1, 10**9))
    finally:
        environment.close()
        ambient.uninstall(WorkflowLoop)


def test_names_in_a_closure_are_replaced(environment: Environment) -> None:
    clock: Any = early_time
    unset: Any

    def body() -> Any:
        return clock() if clock else unset

    environment.prepare(body)
    assert of(body) == NOW_S
    unset = None


def test_names_in_any_module_are_replaced(environment: Environment) -> None:
    other: Any = ModuleType("elsewhere")
    other.clock = original_of(time.time)
    sys.modules["elsewhere"] = other
    try:
        environment.prepare(test_names_in_any_module_are_replaced)
        assert of(lambda: other.clock()) == NOW_S
    finally:
        del sys.modules["elsewhere"]


def test_where_datetime_cannot_be_replaced_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ambient.uninstall(WorkflowLoop)  # a worker of another test in this process may have put it in place for good
    monkeypatch.setattr(clocks, "_set", lambda *_: False)
    environment = ambient.install(WorkflowLoop)
    try:
        assert "datetime.now() cannot be replaced" in caplog.text
    finally:
        environment.close()
        ambient.uninstall(WorkflowLoop)


# ── a replacement looks like what it replaces ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("one", ["time.sleep", "random.random", "random.randint", "uuid.uuid4", "os.urandom"])
def test_a_replacement_can_be_sent_to_another_process(one: str) -> None:
    module, _, name = one.partition(".")
    original = getattr(sys.modules[module], name)
    environment = ambient.install(WorkflowLoop)
    sent = pickle.dumps(getattr(sys.modules[module], name))
    assert pickle.loads(sent) == getattr(sys.modules[module], name)
    environment.close()
    ambient.uninstall(WorkflowLoop)
    assert pickle.loads(sent) == original


def test_a_replacement_has_the_name_the_text_and_the_parameters_of_its_original() -> None:
    def looks() -> list[Any]:
        known: list[Any] = [time.time, time.sleep, uuid.uuid4, uuid.uuid1, random.randint, os.urandom, builtins.print]
        return [(one.__name__, one.__doc__) for one in known] + [_parameters(one) for one in known[2:]]

    before = looks()
    ambient.install(WorkflowLoop).close()
    after = looks()
    ambient.uninstall(WorkflowLoop)
    assert after == before


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function)
    except ValueError:
        return None

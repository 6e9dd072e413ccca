"""One attempt of a function: on the loop or on a thread, with a timeout, and nothing that user code raises gets out."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.model.errors import Limited
from stepwell.worker.attempt import Attempt, Stopped, TimedOut, is_async
from stepwell.worker.threads import Threads

from .bodies import Crowd
from .loops import on_a_loop

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Ran:
    """An attempt of `call`, and what came of it."""

    def __init__(
        self, call: Callable[[], Any], threads: Threads | None = None, limit_ms: int | None = None, grace_s: float = 0.2
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ends: list[tuple[Any, BaseException | None]] = []
        self._over = asyncio.Event()
        context = contextvars.copy_context()
        context.run(WHO.set, "the step")
        self.attempt = Attempt(
            call, self._ended, loop=loop, threads=threads, context=context, limit_ms=limit_ms, grace_s=grace_s
        )

    def _ended(self, value: Any, error: BaseException | None) -> None:
        self.ends.append((value, error))
        self._over.set()

    async def end(self) -> tuple[Any, BaseException | None]:
        async with asyncio.timeout(5):
            await self._over.wait()
        assert len(self.ends) == 1
        return self.ends[0]


@on_a_loop
async def test_values_and_errors_of_both_kinds() -> None:
    async def fine() -> str:
        await asyncio.sleep(0)
        return WHO.get()

    async def wrong() -> None:
        raise ValueError("no")

    pool = Threads(2)
    assert await Ran(fine).end() == ("the step", None)
    assert await Ran(WHO.get, pool).end() == ("the step", None)
    value, error = await Ran(wrong).end()
    assert (value, repr(error)) == (None, "ValueError('no')")
    value, error = await Ran(lambda: 1 / 0, pool).end()
    assert (value, type(error)) == (None, ZeroDivisionError)


@on_a_loop
async def test_a_traceback_begins_in_the_users_code() -> None:
    async def wrong() -> None:
        raise ValueError("no")

    def wrong_too() -> None:
        raise ValueError("no")

    for ran in (Ran(wrong), Ran(wrong_too, Threads(1))):
        _, error = await ran.end()
        assert error is not None
        assert error.__traceback__ is not None
        assert error.__traceback__.tb_frame.f_code.co_filename == __file__


@on_a_loop
async def test_a_lambda_around_a_coroutine_runs_on_the_loop() -> None:
    async def where(name: str) -> tuple[str, str]:
        return name, threading.current_thread().name

    assert await Ran(lambda: where("x"), Threads(1)).end() == (("x", threading.current_thread().name), None)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), StopIteration()])
@on_a_loop
async def test_what_would_end_a_loop_ends_the_attempt(error: BaseException) -> None:
    async def raises() -> None:
        raise error

    def raises_too() -> None:
        raise error

    for ran in (Ran(raises), Ran(raises_too, Threads(1))):
        value, found = await ran.end()
        assert value is None
        assert isinstance(found, BaseException)
        assert isinstance(found, type(error)) or isinstance(found.__cause__, type(error))


@on_a_loop
async def test_a_timeout_stops_a_coroutine_after_its_cleanup() -> None:
    cleaned: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("yes")

    _, error = await Ran(slow, limit_ms=20).end()
    assert isinstance(error, TimedOut)
    assert (error.limit_ms, cleaned) == (20, ["yes"])


@on_a_loop
async def test_one_that_does_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    let_go = asyncio.Event()

    async def deaf() -> str:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    started = time.monotonic()
    ran = Ran(deaf, limit_ms=20, grace_s=0.1)
    _, error = await ran.end()
    assert isinstance(error, TimedOut)
    assert 0.1 < time.monotonic() - started < 1
    assert "left behind" in caplog.text
    let_go.set()
    await asyncio.sleep(0.01)
    assert len(ran.ends) == 1


@on_a_loop
async def test_a_thread_past_its_timeout_gives_its_place_away() -> None:
    let_go = threading.Event()
    pool = Threads(1)
    ran = Ran(let_go.wait, pool, limit_ms=20)
    _, error = await ran.end()
    assert isinstance(error, TimedOut)
    assert pool.abandoned == 1
    assert await Ran(lambda: "next", pool).end() == ("next", None), "the pool has one thread, and it hangs"
    let_go.set()
    for _ in range(200):
        if pool.abandoned == 0:
            break
        await asyncio.sleep(0.01)
    assert pool.abandoned == 0
    assert len(ran.ends) == 1


@on_a_loop
async def test_told_to_stop_but_ready_all_the_same() -> None:
    async def ready() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done anyway"
        return ""

    ran = Ran(ready)
    await asyncio.sleep(0)
    ran.attempt.stop()
    assert await ran.end() == ("done anyway", None)


@on_a_loop
async def test_told_to_stop() -> None:
    ran = Ran(lambda: asyncio.sleep(60))
    ran.attempt.stop()
    _, error = await ran.end()
    assert isinstance(error, Stopped)


@on_a_loop
async def test_an_abandoned_one_tells_nobody() -> None:
    ran = Ran(lambda: asyncio.sleep(0.01))
    ran.attempt.abandon()
    await asyncio.sleep(0.03)
    assert ran.ends == []


@on_a_loop
async def test_never_more_threads_than_the_limit_and_all_of_them() -> None:
    crowd = Crowd()
    pool = Threads(3)
    for ran in [Ran(crowd, pool) for _ in range(12)]:
        assert await ran.end() == (None, None)
    assert crowd.most == 3


@on_a_loop
async def test_threads_that_hang_have_a_bound() -> None:
    let_go = threading.Event()
    pool = Threads(1, lost_limit=2)
    while pool.abandoned < 2:  # one that has not begun in time does not hang
        assert isinstance((await Ran(let_go.wait, pool, limit_ms=5).end())[1], TimedOut)
    _, error = await Ran(let_go.wait, pool).end()
    let_go.set()
    assert isinstance(error, Limited)
    assert "2 threads hang" in error.message
    assert error.hint


@on_a_loop
async def test_a_call_that_waits_for_a_thread_can_be_given_up() -> None:
    let_go, ran_too = threading.Event(), threading.Event()
    pool = Threads(1)
    first = Ran(let_go.wait, pool)
    second = Ran(ran_too.set, pool)
    second.attempt.abandon()
    let_go.set()
    assert await first.end() == (True, None)
    assert await Ran(lambda: 1, pool).end() == (1, None)
    assert (ran_too.is_set(), pool.abandoned) == (False, 0)


def test_what_is_async() -> None:
    class Works:
        async def __call__(self) -> None: ...

    async def yes() -> None: ...

    assert is_async(yes)
    assert is_async(Works())
    assert not is_async(lambda: yes())

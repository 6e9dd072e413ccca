"""Groups of tasks that give up, with a timeout or a cancel around them: as in Python 3.13, whatever runs the body."""

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from stepwell.workflow import library
from stepwell.workflow.loop import WorkflowTimer
from tests.workflow.bodies import Body, BodyHost


class Clock(BodyHost):
    """Fires the timers of a body, the earliest first; those of one time in one turn."""

    def __init__(self) -> None:
        super().__init__()
        library.install()
        self.timers: dict[WorkflowTimer, None] = {}

    def timer_started(self, timer: WorkflowTimer) -> None:
        self.timers[timer] = None

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        self.timers.pop(timer, None)

    def run(self, body: Body) -> Any:
        root = self.loop.create_root(body())
        self.loop.pump()
        while self.timers and not root.done():
            due = min(timer.due_ms for timer in self.timers)
            self.loop.now_s = due / 1_000
            for timer in [timer for timer in self.timers if timer.due_ms == due]:
                del self.timers[timer]
                self.loop.fired(timer)
            self.loop.pump()
        self.loop.evict()
        return root.result()


async def fails(after_s: float) -> None:
    await asyncio.sleep(after_s)
    raise ValueError(after_s)


async def hears(failure: "asyncio.Future[Any]") -> None:
    await failure


async def is_slow_to_end() -> None:
    try:
        await asyncio.sleep(9)
    finally:
        await asyncio.sleep(0.2)


async def timeout_after_a_group_that_failed() -> str:
    try:
        async with asyncio.timeout(0.03):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails(0.01))
            except* ValueError:
                pass
            await asyncio.sleep(9)
    except BaseException as error:
        return type(error).__name__
    return "nothing"


def test_a_timeout_around_a_group_that_failed_while_it_was_left_stays_a_timeout() -> None:
    assert Clock().run(timeout_after_a_group_that_failed) == "TimeoutError"


def test_elsewhere_a_group_is_what_it_was() -> None:
    library.install()
    python = "TimeoutError" if sys.version_info >= (3, 13) else "CancelledError"
    assert asyncio.run(timeout_after_a_group_that_failed()) == python


@pytest.mark.parametrize("waits_inside", [False, True])
@pytest.mark.parametrize("turns", range(5))
def test_a_timeout_in_the_moment_in_which_a_group_fails_cancels_nothing_after_it(
    turns: int, waits_inside: bool
) -> None:
    async def body() -> int:
        loop = asyncio.get_running_loop()
        failure = loop.create_future()

        def reschedule(turns: int) -> None:
            if turns:
                loop.call_soon(reschedule, turns - 1)
            else:
                with contextlib.suppress(RuntimeError):  # the block was left before
                    limit.reschedule(0)

        loop.call_later(1, failure.set_exception, ValueError())
        loop.call_later(1, reschedule, turns)
        with contextlib.suppress(TimeoutError, ExceptionGroup):
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
                group.create_task(hears(failure))
                if waits_inside:
                    await asyncio.sleep(9)
        await asyncio.sleep(1)
        return task_of_the_body().cancelling()

    assert Clock().run(body) == 0


def test_a_cancel_while_a_group_gives_up_is_raised_at_the_next_wait_and_once() -> None:
    async def body() -> list[str]:
        heard, me = list[str](), task_of_the_body()
        asyncio.get_running_loop().call_later(1.1, me.cancel)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(is_slow_to_end())
                group.create_task(fails(1))
        except* ValueError:
            heard.append("ValueError")
        for _ in range(2):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                heard.append(f"canceled {me.cancelling()}")
        return heard

    assert Clock().run(body) == ["ValueError", "canceled 1"]


def task_of_the_body() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task

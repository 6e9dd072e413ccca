"""The loop itself: timers that are due at once, exceptions, tasks of many runs, generators that nobody ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from stepwell.workflow import library
from stepwell.workflow.loop import WorkflowTimer
from tests.workflow.bodies import BodyHost

#: How many runs wait at once.
MANY = 2_000


async def _waits_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _waiting() -> BodyHost:
    host = BodyHost()
    host.loop.create_root(_waits_for_ever())
    host.loop.pump()
    return host


def test_a_timer_that_is_due_at_once_can_be_cancelled() -> None:
    cancelled: list[str] = []

    class Host(BodyHost):
        def timer_cancelled(self, timer: WorkflowTimer) -> None:
            cancelled.append(timer.key)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        for delay in (0, 0.0001, 1):
            loop.call_later(delay, print).cancel()

    Host().run(body)
    assert cancelled == ["~timer#0"]


def test_a_handler_of_exceptions_that_fails_is_told_and_nothing_else_happens() -> None:
    told: list[Any] = []

    class Host(BodyHost):
        def loop_exception(self, context: dict[str, Any]) -> None:
            told.append(context)

    def fails(*args: object) -> None:
        raise ValueError("of the handler")

    async def body() -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(fails)
        loop.call_soon(fails)
        await asyncio.sleep(0)
        return "done"

    assert Host().run(body) == "done"
    assert [str(one["exception"]) for one in told] == ["of the handler"]


def test_all_tasks_of_a_body_are_its_own() -> None:
    async def body() -> list[str]:
        asyncio.create_task(asyncio.sleep(60), name="other")  # noqa: RUF006 - the loop keeps it
        return sorted(task.get_name() for task in asyncio.all_tasks())

    library.install()
    elsewhere, host = _waiting(), BodyHost()
    assert host.run(body) == ["other", "root"]
    host.loop.evict()
    assert len(asyncio.all_tasks(elsewhere.loop)) == 1
    elsewhere.loop.evict()


def test_all_tasks_elsewhere_are_what_they_were() -> None:
    async def main() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    waiting = _waiting()
    assert len(asyncio.run(main())) == 1
    waiting.loop.evict()


def test_runs_that_wait_make_a_new_one_no_slower() -> None:
    """Their tasks have the same hashes: in one set each would be compared with all the others."""

    def took() -> float:
        began = time.thread_time()
        made.extend(_waiting() for _ in range(MANY // 10))
        return time.thread_time() - began

    made: list[BodyHost] = []
    first = min(took() for _ in range(5))
    made.extend(_waiting() for _ in range(5 * MANY))
    later = min(took() for _ in range(5))
    for one in made:
        one.loop.evict()
    assert later < 4 * first


def test_generators_that_nobody_ends_are_looked_through_seldom() -> None:
    async def endless() -> AsyncIterator[int]:
        while True:
            yield 1

    async def begin(count: int) -> float:
        began = time.thread_time()
        for _ in range(count):
            async for _ in endless():
                break
        return time.thread_time() - began

    def took(count: int) -> float:
        host = BodyHost()
        try:
            return float(host.run(lambda: begin(count)))
        finally:
            host.loop.evict()

    few, many = (min(took(count) for _ in range(5)) for count in (MANY // 4, MANY * 2))
    assert many < 24 * few

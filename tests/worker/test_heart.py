"""Heartbeats come from a thread of their own: nothing that blocks the event loop costs a lease."""

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from stepwell.engine.clock import wall_ms
from stepwell.model import commands as c
from stepwell.worker.held import Held
from stepwell.worker.worker import Worker
from stepwell.workflow.context import Context

from .hall import hall
from .site import true
from .support import OK, QUICK, House, house

#: The store's clock runs 30 times as fast: a lease of 10 s is over in a third of a second.
FAST = 30


class Fast:
    def __init__(self) -> None:
        self.start = wall_ms()

    def __call__(self) -> int:
        return self.start + (wall_ms() - self.start) * FAST


async def _blocked(it: House, blocks: asyncio.Event) -> tuple[str, Worker]:
    """A run whose handler blocks the whole event loop for over four leases."""

    async def handler(held: Held) -> None:
        if held.leased.attempt == 1:
            blocks.set()
            time.sleep(4.5 * QUICK.lease_ms / FAST / 1_000)  # noqa: ASYNC251 - that is the point
        await held.finish(c.Completed(f'"attempt {held.leased.attempt}"'))

    it.add(OK)
    worker = Worker(it.engine, {"step": handler}, slots=4)
    worker.start()
    it.workers.append(worker)
    return await it.one(), worker


def test_code_that_blocks_the_event_loop_keeps_its_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path, clock_ms=Fast()) as it:
            run_id, _ = await _blocked(it, asyncio.Event())
            assert (await it.end(run_id)).result == '"attempt 1"'
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]

    asyncio.run(main())


def test_so_do_the_others_that_the_worker_holds(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path, clock_ms=Fast()) as it:
            ended = asyncio.Event()

            async def waiting(held: Held) -> None:
                await ended.wait()
                await held.finish(c.Completed('"still mine"'))

            it.add(OK)
            run_id = await it.one("other")
            other = Worker(it.engine, {"step": waiting}, slots=1)
            other.start()
            it.workers.append(other)
            await true(lambda: other.busy == 1)
            blocked_id, _ = await _blocked(it, asyncio.Event())
            assert (await it.end(blocked_id)).status == "completed"
            ended.set()
            assert (await it.end(run_id)).result == '"still mine"'

    asyncio.run(main())


def test_a_claim_that_is_heard_of_too_late_begins_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loop was blocked between the claim and its answer: the lease may be somebody else's already."""
    caplog.set_level(logging.ERROR)

    async def main() -> None:
        async with house(tmp_path) as it:
            begun: list[int] = []

            async def handler(held: Held) -> None:
                begun.append(held.leased.attempt)
                await held.finish(c.Completed())

            worker = Worker(it.engine, {"step": handler}, slots=4)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("stepwell.worker.claims.steady_s", lambda: time.monotonic() - 60)
                it.add(OK)
                run_id = await it.one()
                worker.start()
                it.workers.append(worker)
                ends = time.monotonic() + 5
                while (await it.task(run_id)).state == "ready":
                    assert time.monotonic() < ends
                    await asyncio.sleep(0.01)
                await true(lambda: worker.busy == 0)
            assert begun == []
            assert (await it.run(run_id)).status == "running", "it waits for the end of the lease"

    asyncio.run(main())


def test_a_heart_that_stops_leaves_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            worker = it.work()
            assert worker.trouble is None
            assert "stepwell-heart" in [thread.name for thread in threading.enumerate()]
            await worker.stop(drain_s=0)
            assert "stepwell-heart" not in [thread.name for thread in threading.enumerate()]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["step", "action"])
def test_an_async_function_that_blocks_is_not_run_a_second_time(tmp_path: Path, kind: str) -> None:
    ran: list[int] = []

    async def blocks() -> str:
        ran.append(1)
        time.sleep(4.5 * QUICK.lease_ms / FAST / 1_000)  # noqa: ASYNC251 - that is the point
        return "done"

    async def main() -> None:
        async with hall(tmp_path, clock_ms=Fast()) as it:
            action = it.action(blocks)

            async def flow(ctx: Context) -> str:
                return await (ctx.call(action) if kind == "action" else ctx.step(blocks))

            it.work()
            run_id = await it.start(it.workflow(flow))
            assert await it.result(run_id) == "done"
            assert ran == [1]
            assert await it.entries(run_id, "attempt.ended") == []

    asyncio.run(main())

"""Hosted turns that have to stop: what is still written, and that nothing begins any more."""

import asyncio
from pathlib import Path

import pytest

from stepwell.functions.define import Retry, State
from stepwell.worker.held import Held
from stepwell.workflow.context import Context

from .bodies import SLOW
from .hall import hall
from .loops import on_a_loop
from .site import true

SEEN = State("seen", int)


@on_a_loop
async def test_a_body_that_always_has_something_to_write_is_handed_back(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def busy(ctx: Context) -> None:
        count = 0
        while True:
            count += 1
            await ctx.set(SEEN, count)
            began.set()

    async with hall(tmp_path) as it:
        run_id = await it.start(it.workflow(busy))
        worker = it.work()
        await began.wait()
        async with asyncio.timeout(2):
            await worker.stop(drain_s=0)
        assert (await it.kinds(run_id))[-1] == "attempt.ended"
        assert (await it.run(run_id)).status == "queued"


@on_a_loop
async def test_a_process_that_stood_still_past_its_lease_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []
    over = False
    mine: list[Held] = []

    async def fails() -> None:
        nonlocal over
        attempts.append(1)
        over = True
        raise ValueError("once more")

    async def retries(ctx: Context) -> None:
        await ctx.options(retry=Retry(max_attempts=3, initial=0.01)).step(fails)

    def lost(self: Held) -> None:
        mine.append(self)
        lose(self)

    lose = Held.lose
    monkeypatch.setattr(Held, "over", property(lambda self: over))
    monkeypatch.setattr(Held, "lose", lost)
    async with hall(tmp_path, settings=SLOW) as it:
        run_id = await it.start(it.workflow(retries))
        it.work()
        await true(lambda: mine)
        assert attempts == [1]
        assert [one.kind for one in await it.entries(run_id, "step")] == ["step.retried"]
        over = False

"""Time is the database's: a machine whose clock is an hour wrong fires timers on time and takes nobody's lease."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

import pytest

from stepwell.engine.clock import StoreClock, wall_ms
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.store.postgres.store import PostgresStore
from tests.support import assert_lawful

HOUR_MS = 3_600_000
#: A poll that is no help: what is on time was not found by it.
SETTINGS = Settings(poll_ms=10_000)


def wrong_by(ms: int) -> StoreClock:
    return StoreClock(lambda: wall_ms() + ms)


def engine(store: PostgresStore, monkeypatch: pytest.MonkeyPatch, wrong_ms: int, settings: Settings) -> Engine:
    """An engine on a machine whose clock is wrong."""
    with monkeypatch.context() as patch:
        patch.setattr("stepwell.engine.engine.StoreClock", partial(wrong_by, wrong_ms))
        return Engine(store, settings=settings)


@pytest.mark.parametrize("wrong_ms", [-HOUR_MS, HOUR_MS])
def test_a_timer_fires_on_time_and_nothing_spins(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, wrong_ms: int
) -> None:
    async def main() -> None:
        async with engine(store, monkeypatch, wrong_ms, SETTINGS) as it:
            assert abs(it.clock_ms() - wall_ms()) < 5_000, "known before the first command"
            claim = (await it.submit(c.StartRun("r", "wf", claim_for=c.ClaimFor("w", 60_000, "s")))).claim
            assert claim is not None
            assert abs(claim.lease_until - 60_000 - wall_ms()) < 5_000
            began, batches = time.monotonic(), it.lanes.timings.batches
            due_at = it.clock_ms() + 400
            await it.submit(c.Park(claim.lease, 1, claim.seen, ("timer:t#1",), due_at=due_at, due_key="t#1"))
            run = await it.wait_run(claim.run.no, lambda run: run.status == "queued", timeout_s=5)
            assert 0.2 < time.monotonic() - began < 5, "what it knows of the database's clock is some ms old"
            assert it.lanes.timings.batches - batches < 30
            assert run is not None
            fired = await it.read(lambda reader: reader.entries(run.no)[-1])
            assert fired.kind == "timer.fired"
            assert due_at <= fired.at < due_at + 5_000

    asyncio.run(main())
    assert_lawful(store)


def test_a_machine_of_tomorrow_takes_no_lease_of_today(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = Settings(poll_ms=100, lease_ms=10_000)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            right = await stack.enter_async_context(Engine(store, settings=fast))
            ahead, behind = [
                await stack.enter_async_context(engine(store, monkeypatch, wrong, fast))
                for wrong in (24 * HOUR_MS, -24 * HOUR_MS)
            ]
            for number, holder in enumerate((right, behind)):
                await holder.submit(c.StartRun(f"r{number}", "wf"))
                assert len((await holder.submit(c.Claim("w", f"q{number}"))).tasks) == 1
            for _ in range(3):
                assert (await ahead.submit(c.Sweep())).count == 0
            assert (await ahead.submit(c.Claim("thief", "q"))).tasks == []
            states = await right.read(lambda reader: [reader.tasks_of(run.no)[0].state for run in reader.scan_runs()])
            assert states == ["leased", "leased"]

    asyncio.run(main())
    assert_lawful(store)


def test_a_clock_that_was_given_is_the_time(store: PostgresStore) -> None:
    async def main() -> None:
        async with Engine(store, clock_ms=lambda: 1_234_567, roles=False) as it:
            await it.submit(c.StartRun("r", "wf"))
            entry = await it.read(lambda reader: reader.entries(1)[0])
            assert entry.at == it.clock_ms() == 1_234_567

    asyncio.run(main())

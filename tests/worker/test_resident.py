"""Residents: who stays in memory how long, that waiting takes no place from others, and alarms."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.engine.clock import wall_ms
from stepwell.model import commands as c
from stepwell.model.errors import Invalid
from stepwell.worker.residents import SPARE, Alarms, Clock, Residents
from stepwell.worker.worker import Worker
from stepwell.workflow.context import Context
from tests import support

from .bodies import NEVER_PARKS, note, waits
from .hall import QUICK, hall
from .loops import on_a_loop
from .site import true


async def works(ctx: Context) -> str:
    return await ctx.step(note)


@on_a_loop
async def test_runs_that_wait_take_no_place_from_others(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        worker = it.work(runs=2)
        waiting, working = it.workflow(waits), it.workflow(works)
        sleepers = [await it.start(waiting) for _ in range(10)]
        await true(lambda: len(it.turns[0].residents) == 10)
        assert worker.busy == 0
        assert await it.result(await it.start(working)) == "x"
        for run_id in sleepers:
            await it.signal(run_id, "go", run_id)
        for run_id in sleepers:
            assert await it.result(run_id) == run_id
        await true(lambda: len(it.turns[0].residents) == 0)


@on_a_loop
async def test_never_more_runs_at_once_than_the_worker_may_and_all_of_them(tmp_path: Path) -> None:
    running, most = 0, 0

    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    async def flow(ctx: Context) -> None:
        await ctx.step(counted)

    async with hall(tmp_path) as it:
        workflow = it.workflow(flow)
        runs = [await it.start(workflow) for _ in range(12)]
        it.work(runs=3)
        for run_id in runs:
            await it.result(run_id)
        assert most == 3


@on_a_loop
async def test_a_run_lingers_and_then_parks(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.work()
        begun = time.monotonic()
        run_id = await it.start(it.workflow(waits))
        run = await it.parked(run_id)
        assert run.status == "waiting"
        assert msgspec.json.decode(run.waits or "[]") == ["signal:go"]
        assert QUICK.linger_ms / 1_000 <= time.monotonic() - begun < 3
        await it.signal(run_id, "go", 1)
        assert await it.result(run_id) == 1


@on_a_loop
async def test_a_timer_that_is_far_away_parks_at_once(tmp_path: Path) -> None:
    async def sleeps(ctx: Context) -> str:
        await ctx.sleep(3_600)
        return "x"

    async def may_hear(ctx: Context) -> Any:
        return await ctx.wait_for_signal("go", timeout=3_600)

    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        it.work()
        other = await it.start(it.workflow(may_hear))
        run_id = await it.start(it.workflow(sleeps))
        begun = time.monotonic()
        async with asyncio.timeout(2):
            assert (await it.parked(run_id)).status == "waiting" or (await it.run(run_id)).status == "sleeping"
        assert time.monotonic() - begun < 2
        assert (await it.run(other)).status == "running", "a signal may come any time"


@on_a_loop
async def test_more_than_may_stay_park_the_longest_first(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(NEVER_PARKS, resident_runs=3)
    async with hall(tmp_path, settings=settings) as it:
        it.work()
        workflow = it.workflow(waits)
        runs = []
        for _ in range(6):
            runs.append(await it.start(workflow))
            await true(lambda: [one for one in it.sent if isinstance(one, c.Park)] or it.turns[0].residents)
            await asyncio.sleep(0.05)
        parked = [run_id for run_id in runs if (await it.run(run_id)).status == "waiting"]
        assert parked == runs[: len(parked)]
        assert 3 <= len(parked) <= 6
        assert len(it.turns[0].residents) <= 3
        for run_id in runs:
            await it.signal(run_id, "go", 1)
            assert await it.result(run_id) == 1


@on_a_loop
async def test_a_signal_in_the_moment_of_the_park_is_not_lost(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, linger_ms=0)

    async def hears(ctx: Context) -> list[Any]:
        return [await ctx.wait_for_signal("go") for _ in range(30)]

    async with hall(tmp_path, settings=settings) as it:
        it.work()
        run_id = await it.start(it.workflow(hears))
        for n in range(30):
            await it.signal(run_id, "go", n)
            await asyncio.sleep(0.001 * (n % 4))
        assert await it.result(run_id) == list(range(30))


@pytest.mark.parametrize("runs", [0, -1, 10_001])
@on_a_loop
async def test_runs_have_bounds(tmp_path: Path, runs: int) -> None:
    async with hall(tmp_path) as it:
        it.work()
        with pytest.raises(Invalid, match="runs must be"):
            Worker(it.engine, {}, turns=it.turns[0], runs=runs)


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sleeper:
    def __init__(self) -> None:
        self.parked = self.rung = 0

    def park(self) -> None:
        self.parked += 1

    def ring(self) -> None:
        self.rung += 1


@on_a_loop
async def test_who_comes_back_stays_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    clock = support.Clock(0)
    monkeypatch.setattr("stepwell.worker.residents.steady_s", lambda: clock.now / 1_000)

    class Named(Sleeper):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def park(self) -> None:
            gone.append(self.name)

    residents, one, other = Residents(80, 100), Named("one"), Named("other")
    residents.add(one)
    clock.tick(50)
    residents.add(other)
    residents.add(one)
    clock.tick(50)
    residents._look()
    await asyncio.sleep(0)
    assert gone == []
    clock.tick(50)
    await true(lambda: len(gone) == 2)
    assert gone == ["other", "one"]
    assert len(residents) == 0


@on_a_loop
async def test_the_fuller_it_is_the_shorter_they_stay() -> None:
    residents = Residents(1_000, 10)
    for left in (1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1):
        residents.add(Sleeper())
        assert residents.linger_s == pytest.approx(left)
    residents.drain()
    assert (residents.linger_s, len(residents)) == (0.0, 0)


@on_a_loop
async def test_alarms_ring_once_at_the_last_time_that_was_asked_for() -> None:
    clock = Clock()
    clock.tell(wall_ms())
    alarms, one, other = Alarms(clock), Sleeper(), Sleeper()
    now = clock.now_ms()
    alarms.set(one, now + 10_000)
    alarms.set(one, now + 30)
    alarms.set(other, now + 30)
    alarms.set(other, None)
    begun = time.monotonic()
    await true(lambda: one.rung)
    assert 0.02 < time.monotonic() - begun < 0.5
    await asyncio.sleep(0.05)
    assert (one.rung, other.rung) == (1, 0)


@on_a_loop
async def test_a_clock_that_is_put_forward_rings() -> None:
    clock = Clock()
    clock.tell(1_000_000)
    alarms, one = Alarms(clock), Sleeper()
    alarms.set(one, 1_000_000 + 3_600_000)
    clock.tell(1_000_000 + 3_600_000)
    alarms.look()
    await true(lambda: one.rung)


@on_a_loop
async def test_alarms_that_nobody_wants_any_more_take_no_room() -> None:
    clock = Clock()
    clock.tell(1_000_000)
    alarms, one = Alarms(clock), Sleeper()
    for n in range(20_000):
        alarms.set(one, 2_000_000 + n)
    assert len(alarms._heap) <= SPARE + 3
    alarms.close()


def test_a_clock_is_never_ahead_and_follows_one_that_was_put_back() -> None:
    clock = Clock()
    clock.tell(50_000, at=10.0)
    clock.tell(50_900, at=11.0)  # the answer was under way for 100 ms
    assert clock._ahead == 40_000
    clock.tell(41_000, at=11.0)
    assert clock._ahead == 30_000

"""Subject `steps`: recorded steps a second, next to the floor, by callers, event loop and shape."""

import asyncio
import threading
import time
from collections.abc import Iterator

from bench.floor import Floor
from bench.report import Row, at_least, at_most, number, quantile
from bench.rig import Rig, Turn, engine_on, run, snapshot, turns, where
from stepwell.engine.engine import Engine

CALLERS = (1, 10, 100, 1_000)
#: Steps of one caller in one round.
QUICK = {1: 400, 10: 200, 100: 100, 1_000: 15}
FULL = {1: 2_000, 10: 1_000, 100: 300, 1_000: 50}


def measure(rig: Rig) -> Iterator[Row]:
    """All rows of the subject."""
    yield from run(alone(rig))
    yield from run(together(rig))
    for loop in rig.loops():
        for callers in CALLERS:
            yield from run(closed_loop(rig, callers, loop), loop)
    yield from run(in_tens(rig), rig.loops()[-1])
    yield from run(many_loops(rig))


async def alone(rig: Rig) -> list[Row]:
    """One caller in pairs with the floor: floor, ours, floor, ours."""
    pairs, steps = 20, rig.pick(60, 200)
    floor = Floor(rig.fresh("steps-floor-1"))
    single: list[float] = []
    all_rows: list[float] = []
    handed: list[float] = []
    ours: list[float] = []
    async with engine_on(rig.fresh("steps-1")) as engine:
        (turn,) = await turns(engine, 1)
        for _ in range(pairs):
            single.append(floor.one_row(steps))
            started = time.perf_counter()
            await turn.steps(engine, steps)
            ours.append(time.perf_counter() - started)
            all_rows.append(floor.all_rows(steps))
            handed.append(await floor.handed_over(steps))
    floor.close()
    times = [mine / raw for mine, raw in zip(ours, single, strict=True)]
    same = [mine / raw for mine, raw in zip(ours, all_rows, strict=True)]
    over = [mine / raw for mine, raw in zip(ours, handed, strict=True)]
    return [
        Row("floor: one entry a commit", "rows/s", [steps / one for one in single]),
        Row("floor: entry, run, change, lane a commit", "commits/s", [steps / one for one in all_rows]),
        Row("floor: the same on a writer's thread, awaited", "commits/s", [steps / one for one in handed]),
        Row("1 caller, in pairs with the floor", "steps/s", [steps / one for one in ours]),
        Row("time of a step / time of a one-row commit", "x", times, f"{pairs} pairs", at_most(1.8)),
        Row("time of a step / commit of all its rows", "x", same, f"{pairs} pairs"),
        Row("time of a step / the same on a thread, awaited", "x", over, f"{pairs} pairs"),
    ]


async def together(rig: Rig) -> list[Row]:
    """A hundred callers in pairs with group commits of a hundred rows."""
    pairs, steps = 20, rig.pick(20, 60)
    floor = Floor(rig.fresh("steps-floor-100"))
    raw: list[float] = []
    ours: list[float] = []
    async with engine_on(rig.fresh("steps-100")) as engine:
        leased = await turns(engine, 100)
        for _ in range(pairs):
            raw.append(steps * 100 / floor.group(steps))
            ours.append(await _round(engine, leased, steps))
    floor.close()
    ratios = [mine / rows for mine, rows in zip(ours, raw, strict=True)]
    return [
        Row("floor: 100 entries a commit", "rows/s", raw),
        Row("100 callers, in pairs with the floor", "steps/s", ours, "", at_least(25_000)),
        Row("steps/s / rows/s of the floor", "x", ratios, f"{pairs} pairs"),
    ]


async def _round(engine: Engine, leased: list[Turn], steps: int, took: list[float] | None = None) -> float:
    """Steps a second of all turns at once."""
    started = time.perf_counter()
    await asyncio.gather(*(turn.steps(engine, steps, took) for turn in leased))
    return len(leased) * steps / (time.perf_counter() - started)


async def closed_loop(rig: Rig, callers: int, loop: str) -> list[Row]:
    """Each caller sends its next step when the last one is durable."""
    steps, rounds = rig.pick(QUICK, FULL)[callers], rig.pick(3, 5)
    took: list[float] = []
    async with engine_on(rig.fresh(f"steps-{loop}-{callers}")) as engine:
        leased = await turns(engine, callers)
        await _round(engine, leased, max(1, steps // 10))
        before, started = snapshot(engine.lanes.timings), time.perf_counter()
        rates = [await _round(engine, leased, steps, took) for _ in range(rounds)]
        shares = where(before, engine.lanes.timings, time.perf_counter() - started)
    ms = [one * 1_000 for one in took]
    tail = f"p50 {number(quantile(ms, 0.5))} p99 {number(quantile(ms, 0.99))} ms; {shares}"
    return [Row(f"{callers:,} callers, {loop}", "steps/s", rates, tail, at_least(25_000) if callers == 100 else None)]


async def in_tens(rig: Rig) -> list[Row]:
    """A hundred callers whose writes bring ten steps each, as a body that gathers does."""
    writes, rounds = rig.pick(20, 60), 3
    rates = []
    async with engine_on(rig.fresh("steps-tens")) as engine:
        leased = await turns(engine, 100)
        for _ in range(rounds):
            started = time.perf_counter()
            await asyncio.gather(*(turn.steps(engine, writes, drafts=10) for turn in leased))
            rates.append(100 * writes * 10 / (time.perf_counter() - started))
    return [Row("100 callers, 10 steps a write", "steps/s", rates, "commands/s are a tenth of it")]


async def many_loops(rig: Rig, loops: int = 4) -> list[Row]:
    """A hundred callers on four event loops in four threads: the lane answers each loop with one hop."""
    steps, rounds = rig.pick(60, 200), rig.pick(2, 5)
    async with engine_on(rig.fresh("steps-loops")) as engine:
        leased = await turns(engine, 100)
        rates = []
        for _ in range(rounds):
            started = time.perf_counter()
            await asyncio.to_thread(_threads, engine, [leased[one::loops] for one in range(loops)], steps)
            rates.append(100 * steps / (time.perf_counter() - started))
    return [Row(f"100 callers on {loops} event loops", "steps/s", rates)]


def _threads(engine: Engine, groups: list[list[Turn]], steps: int) -> None:
    threads = [threading.Thread(target=lambda own=own: asyncio.run(_steps(engine, own, steps))) for own in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _steps(engine: Engine, own: list[Turn], steps: int) -> None:
    await asyncio.gather(*(turn.steps(engine, steps) for turn in own))

"""Subject `workflows`: trivial workflows a second, from start to finish, every command awaited."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from bench.report import Row, at_least, number, quantile
from bench.rig import PAYLOAD, Rig, engine_on, run, snapshot, where
from stepwell.engine.engine import Engine
from stepwell.engine.lane import Timings
from stepwell.model import commands as c

One = Callable[[Engine, str], Awaitable[None]]
DONE = c.Completed(PAYLOAD)


def measure(rig: Rig) -> Iterator[Row]:
    """Three ways to run a workflow, a hundred and a thousand at once."""
    for callers in (100, 1_000):
        for name, one in (("separate", separate), ("fused", fused)):
            yield run(closed_loop(rig, callers, name, one), rig.loops()[-1])
        yield run(by_worker(rig, callers), rig.loops()[-1])


async def separate(engine: Engine, run_id: str) -> None:
    """Three commands: start, claim whatever is first, finish it."""
    await engine.submit(c.StartRun(id=run_id, name="bench"))
    claimed = await engine.submit(c.Claim(worker="bench", request=engine.secret()))
    for task in claimed.tasks:
        await engine.submit(c.Finish(task.lease, 1, DONE))


async def fused(engine: Engine, run_id: str) -> None:
    """Two commands: start with the first lease, finish. Claims instead when something ready is before it."""
    claim_for = c.ClaimFor("bench", 120_000, engine.secret())
    started = await engine.submit(c.StartRun(id=run_id, name="bench", claim_for=claim_for))
    tasks = [started.claim] if started.claim else []
    if not tasks:
        tasks = (await engine.submit(c.Claim(worker="bench", request=engine.secret()))).tasks
    for task in tasks:
        await engine.submit(c.Finish(task.lease, 1, DONE))


async def closed_loop(rig: Rig, callers: int, name: str, one: One) -> Row:
    """Each caller begins its next workflow when the last one has ended."""
    total, rounds = rig.pick(3_000, 10_000), rig.pick(3, 5)
    took: list[float] = []

    async def caller(label: str) -> None:
        for turn in range(total // callers):
            started = time.perf_counter()
            await one(engine, f"{label}-{turn}")
            took.append(time.perf_counter() - started)

    async with engine_on(rig.fresh(f"workflows-{name}-{callers}")) as engine:
        before, began, rates = snapshot(engine.lanes.timings), time.perf_counter(), []
        for number_ in range(rounds):
            started = time.perf_counter()
            await asyncio.gather(*(caller(f"r{number_}-{one}") for one in range(callers)))
            rates.append(total // callers * callers / (time.perf_counter() - started))
        note = _note(engine, before, time.perf_counter() - began, took)
        await _all_ended(engine)
    budget = at_least(8_000) if callers == 100 else None
    return Row(f"{callers:,} at once, {name}", "wf/s", rates, note, budget)


async def by_worker(rig: Rig, callers: int) -> Row:
    """Callers start and wait for the end; one worker claims up to 100 a command and finishes them."""
    total, rounds = rig.pick(3_000, 10_000), rig.pick(3, 5)
    took: list[float] = []
    ends: dict[str, asyncio.Event] = {}

    async def caller(label: str) -> None:
        for turn in range(total // callers):
            started = time.perf_counter()
            run_id = f"{label}-{turn}"
            ends[run_id] = asyncio.Event()
            await engine.submit(c.StartRun(id=run_id, name="bench"))
            await ends[run_id].wait()
            del ends[run_id]
            took.append(time.perf_counter() - started)

    async with engine_on(rig.fresh(f"workflows-worker-{callers}")) as engine:
        worker = asyncio.create_task(_work(engine, ends))
        before, began, rates = snapshot(engine.lanes.timings), time.perf_counter(), []
        for number_ in range(rounds):
            started = time.perf_counter()
            async with asyncio.timeout(60):
                await asyncio.gather(*(caller(f"w{number_}-{one}") for one in range(callers)))
            rates.append(total // callers * callers / (time.perf_counter() - started))
        note = _note(engine, before, time.perf_counter() - began, took)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await _all_ended(engine)
    return Row(f"{callers:,} at once, one worker claims by 100", "wf/s", rates, note)


async def _work(engine: Engine, ends: dict[str, asyncio.Event]) -> None:
    async def finish(task: c.Leased) -> None:
        await engine.submit(c.Finish(task.lease, 1, DONE))
        ends[task.run.id].set()

    hint = engine.ready_hint()
    busy: set[asyncio.Task[None]] = set()
    while True:
        hint.clear()
        claimed = await engine.submit(c.Claim(worker="bench", request=engine.secret(), limit=100))
        for task in claimed.tasks:
            work = asyncio.create_task(finish(task))
            busy.add(work)
            work.add_done_callback(busy.discard)
        if not claimed.tasks:
            await hint.wait()


def _note(engine: Engine, before: Timings, wall_s: float, took: list[float]) -> str:
    ms = [one * 1_000 for one in took]
    tail = f"p50 {number(quantile(ms, 0.5))} p99 {number(quantile(ms, 0.99))} ms"
    return f"{tail}; {where(before, engine.lanes.timings, wall_s)}"


async def _all_ended(engine: Engine) -> None:
    """A rate of workflows that did not end is no rate."""
    open_runs = await engine.read(lambda reader: reader.counts())
    if open_runs:
        raise RuntimeError(f"not every workflow ended: {open_runs}")

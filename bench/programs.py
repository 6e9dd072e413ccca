"""Subject `programs`: workflows as users write them, through the public API, next to the floor of their rows.

Everything is in it: the body on its loop, the worker, the lane, one process, full sync. `steps` and `workflows` measure
the engine below, by commands.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec

from bench.ground import Ground, OnSqlite
from bench.report import Row, latencies
from bench.rig import PAYLOAD, Rig, run
from stepwell import App, Context, Handle, Signal, Stepwell
from stepwell.engine.clock import steady_s
from stepwell.functions.starts import start_command
from stepwell.model.settings import Settings

Result = dict[str, bool | int | str]
Ends = Callable[[Stepwell], Awaitable[Result]]
app = App("bench")
RESULT: Result = msgspec.json.decode(PAYLOAD)
go = Signal("go", dict)
AT_ONCE = 100


async def make(n: int) -> Result:
    """What a step does: nothing but its result."""
    return RESULT


@app.workflow
async def chain(ctx: Context, count: int) -> int:
    for n in range(count):
        await ctx.step("make", make, n)
    return count


@app.workflow
async def fan(ctx: Context, count: int) -> int:
    return len(await asyncio.gather(*(ctx.step("make", make, n) for n in range(count))))


@app.workflow
async def trivial(ctx: Context) -> Result:
    return RESULT


@app.workflow
async def resumes(ctx: Context, count: int) -> float:
    """Answers when it was resumed: in a step, since a body has no real time."""
    for n in range(count):
        await ctx.step("make", make, n)
    await ctx.wait_for_signal(go)
    return await ctx.step("resumed", real_time)


async def real_time() -> float:
    return time.perf_counter()


def measure(rig: Rig) -> Iterator[Row]:
    """All rows of the subject."""
    for loop in rig.loops():
        yield from rows_on(OnSqlite(rig), rig, loop)
    yield from run(long(OnSqlite(rig), rig), rig.loops()[-1])


def rows_on(ground: Ground, rig: Rig, loop: str) -> Iterator[Row]:
    """The rows of one kind of database, with one event loop."""
    for rows in (_alone, _together, _trivial, _latency):
        yield from run(rows(ground, rig, loop), loop)


@asynccontextmanager
async def opened(url: str, *, settings: Settings | None = None) -> AsyncIterator[Stepwell]:
    """The app in this process, warm."""
    async with Stepwell(url, app, settings=settings) as sw:
        await (await sw.start(chain, 20)).result()
        yield sw


async def _alone(ground: Ground, rig: Rig, loop: str) -> list[Row]:
    """One workflow in pairs with the floor: a commit of the rows of a step."""
    pairs, steps = rig.pick(8, 20), rig.pick(100, 400)
    floor = ground.floor(f"programs-floor-{loop}")
    ours: list[float] = []
    single: list[float] = []
    same: list[float] = []
    async with opened(ground.url(f"programs-1-{loop}")) as sw:
        for _ in range(pairs):
            single.append(floor.one_row(steps))
            started = time.perf_counter()
            await (await sw.start(chain, steps)).result()
            ours.append(time.perf_counter() - started)
            same.append(floor.all_rows(steps))
    floor.close()
    note = f"{pairs} pairs"
    return [
        Row(f"1 workflow of {steps} steps, {loop}", "steps/s", [steps / one for one in ours]),
        Row(
            f"time of a step / one-row commit, {loop}",
            "x",
            _over(ours, single),
            f"{pairs} pairs",
            ground.budget("step"),
        ),
        Row(f"time of a step / commit of its rows, {loop}", "x", _over(ours, same), note),
    ]


def _over(ours: list[float], floor: list[float]) -> list[float]:
    return [mine / raw for mine, raw in zip(ours, floor, strict=True)]


async def _together(ground: Ground, rig: Rig, loop: str) -> list[Row]:
    """A hundred workflows at once, in pairs with group commits of a hundred rows; and one that gathers."""
    pairs, steps = rig.pick(4, 10), rig.pick(50, 200)
    floor = ground.floor(f"programs-floor-100-{loop}")
    raw: list[float] = []
    ours: list[float] = []
    cpu: list[float] = []
    wide: list[float] = []
    async with opened(ground.url(f"programs-100-{loop}")) as sw:
        for _ in range(pairs):
            raw.append(steps * AT_ONCE / floor.group(steps))
            started, used = time.perf_counter(), time.process_time()
            runs = await asyncio.gather(*(sw.start(chain, steps) for _ in range(AT_ONCE)))
            await asyncio.gather(*(one.result() for one in runs))
            ours.append(AT_ONCE * steps / (time.perf_counter() - started))
            cpu.append((time.process_time() - used) / (AT_ONCE * steps) * 1e6)
            started = time.perf_counter()
            await (await sw.start(fan, 1_000)).result()
            wide.append(1_000 / (time.perf_counter() - started))
    floor.close()
    ratios = [mine / rows for mine, rows in zip(ours, raw, strict=True)]
    return [
        Row(f"{AT_ONCE} workflows at once, {loop}", "steps/s", ours, "", ground.budget("steps")),
        Row(f"processor time of a step, all threads, {loop}", "us", cpu),
        Row(f"steps/s / rows/s of 100-row commits, {loop}", "x", ratios, f"{pairs} pairs"),
        Row(f"one workflow gathers 1,000 steps, {loop}", "steps/s", wide),
    ]


async def _trivial(ground: Ground, rig: Rig, loop: str) -> list[Row]:
    """Workflows without a step, a hundred callers: leased as they start, and through the queue."""
    rounds, each = rig.pick(3, 5), rig.pick(20, 60)
    rates: dict[Ends, list[float]] = {direct: [], queued: []}

    async def caller(sw: Stepwell, ended: Ends) -> None:
        for _ in range(each):
            await ended(sw)

    async with opened(ground.url(f"programs-trivial-{loop}")) as sw:
        for _ in range(rounds):
            for ended, samples in rates.items():
                began = time.perf_counter()
                await asyncio.gather(*(caller(sw, ended) for _ in range(AT_ONCE)))
                samples.append(AT_ONCE * each / (time.perf_counter() - began))
    what = f"trivial workflows, {AT_ONCE} callers"
    return [
        Row(f"{what}, through the queue, {loop}", "wf/s", rates[queued], "", ground.budget("queued")),
        Row(f"{what}, leased as they start, {loop}", "wf/s", rates[direct]),
    ]


async def direct(sw: Stepwell) -> Result:
    """A trivial workflow from start to result: where there is room for it here, its start leases it."""
    return await (await sw.start(trivial)).result()


async def queued(sw: Stepwell) -> Result:
    """The same by a start that leases nothing, as those of events and of other processes: the worker claims the run."""
    engine, since = sw._connection.engine, steady_s()
    given = trivial.signature.bind((), {})
    command = start_command(trivial, given, {}, run_id=engine.new_id(), scope="main", now=engine.clock_ms())
    started = await engine.submit(command)
    new = (started.run_no, since)
    return await Handle(sw._connection, started.run_id, trivial, scope="main", new=new).result()


async def _latency(ground: Ground, rig: Rig, loop: str) -> list[Row]:
    """On an idle engine: start to result of one step; a signal to a resident run, and to a parked one."""
    count = rig.pick(100, 400)
    took: list[float] = []
    async with opened(ground.url(f"programs-latency-{loop}")) as sw:
        for _ in range(count):
            started = time.perf_counter()
            await (await sw.start(chain, 1)).result()
            took.append(time.perf_counter() - started)
        resident = [await resumed(sw, 1, "waiting") for _ in range(count)]
    async with opened(ground.url(f"programs-parked-{loop}"), settings=Settings(linger_ms=0)) as sw:
        parked = [await resumed(sw, 10, "waiting") for _ in range(count)]
    return [
        latencies(f"start to result, one step, {loop}", took, "", ground.budget("start")),
        latencies(f"signal to resumed, resident, {loop}", resident, "", ground.budget("resident")),
        latencies(f"signal to resumed, parked, 10 steps to replay, {loop}", parked, "", ground.budget("parked")),
    ]


async def resumed(sw: Stepwell, steps: int, status: str) -> float:
    """Seconds from the send of a signal until the body that waits for it goes on, after `steps` steps before."""
    run = await sw.start(resumes, steps)
    async for seen in run.watch():
        if seen.status == status or (seen.status == "running" and await _waits(run, steps)):
            break
    await asyncio.sleep(0.005)
    started = time.perf_counter()
    await run.signal(go, {"ok": True})
    return await run.result() - started


async def _waits(run: Handle[float], steps: int) -> bool:
    """A resident run is running as far as the journal says: it waits when its last step is recorded."""
    entries = [entry.kind async for entry in run.journal()]
    return entries.count("step.completed") == steps


async def long(ground: Ground, rig: Rig) -> list[Row]:
    """A run of 10,000 steps that was parked is resumed: its journal is read and replayed, then it ends."""
    steps, rounds = rig.pick(2_000, 10_000), rig.pick(3, 5)
    async with opened(ground.url("programs-long"), settings=Settings(linger_ms=0)) as sw:
        took = [await resumed(sw, steps, "waiting") for _ in range(rounds)]
    return [latencies(f"resume of a run of {steps:,} steps, warm", took, "", ground.budget("resume"))]

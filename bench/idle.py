"""Subject `idle`: what 1,000,000 parked runs cost those that are not, and how late a burst of timers is."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench import seed
from bench.report import Row, at_least, at_most, latencies
from bench.rig import PAYLOAD, Rig, engine_on, run, turns
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.store.sqlite.store import SqliteStore

PARKED = 1_000_000
LEAD_MS = 4_000  # until the first timer of a burst: the engine opens meanwhile


def measure(rig: Rig) -> Iterator[Row]:
    """Half of the parked runs wait for a signal, half for a timer in a year."""
    empty, full = rig.fresh("idle-empty"), rig.fresh("idle-parked")
    run(seed.prototypes(empty))
    waiting, sleeping = run(seed.prototypes(full))
    started = time.perf_counter()
    seed.copies(full, waiting, PARKED // 2, label="waiting")
    seed.copies(full, sleeping, PARKED // 2, label="sleeping")
    size = full.stat().st_size / (1 << 20)
    note = f"{size:,.0f} MiB, {size * (1 << 20) / PARKED:,.0f} B a run, three entries each"
    yield Row(f"made {PARKED:,} parked runs", "s", [time.perf_counter() - started], note)
    yield from asleep(rig, empty, full)
    yield from run(beside(rig, empty, full))
    yield from _burst(rig, full, sleeping)


def asleep(rig: Rig, empty: Path | str, full: Path | str) -> Iterator[Row]:
    """Two processes at the same time, one on each database; processor time is of each process alone."""
    seconds = rig.pick(20, 60)
    command = [sys.executable, "-m", "bench.sleeper"]
    both = [subprocess.Popen([*command, str(place), str(seconds)], stdout=subprocess.PIPE) for place in (empty, full)]
    none, parked = (json.loads(process.communicate(timeout=seconds + 60)[0]) for process in both)
    more_mib = parked["mib"] - none["mib"]
    yield Row(f"CPU over {seconds} s, empty", "%", [none["cpu"]])
    note = f"{parked['cpu'] - none['cpu']:+.2f} over empty"
    yield Row(f"CPU over {seconds} s, {PARKED:,} parked", "%", [parked["cpu"]], note, at_most(1))
    memory = f"{parked['mib']:.0f} against {none['mib']:.0f}"
    yield Row("memory more than empty", "MiB", [more_mib], memory, at_most(20))


async def beside(rig: Rig, empty: Path | str, full: Path | str, *, claim_ms: float = 1) -> list[Row]:
    """Claims and steps on both databases in pairs: without, with, without, with."""
    pairs, steps = rig.pick(6, 12), rig.pick(60, 150)
    claims: dict[Path | str, list[float]] = {empty: [], full: []}
    rates: dict[Path | str, list[float]] = {empty: [], full: []}
    async with engine_on(empty) as without, engine_on(full) as with_:
        both = [(empty, without, await turns(without, 100)), (full, with_, await turns(with_, 100))]
        for _, engine, leased in both:  # the first pages and plans are not what is compared
            await asyncio.gather(*(turn.steps(engine, 20) for turn in leased))
        for pair in range(pairs):
            for place, engine, leased in both:
                claims[place] += [await _claim(engine, f"claim-{pair}-{one}") for one in range(40)]
                started = time.perf_counter()
                await asyncio.gather(*(turn.steps(engine, steps) for turn in leased))
                rates[place].append(100 * steps / (time.perf_counter() - started))
    ratios = [one / other for one, other in zip(rates[full], rates[empty], strict=True)]
    return [
        latencies("claim, empty", claims[empty]),
        latencies(f"claim, {PARKED:,} parked", claims[full], "", at_most(claim_ms)),
        Row("100 callers, empty", "steps/s", rates[empty]),
        Row(f"100 callers, {PARKED:,} parked", "steps/s", rates[full]),
        Row("throughput with / without", "x", ratios, f"{pairs} pairs", at_least(0.9)),
    ]


async def _claim(engine: Engine, run_id: str) -> float:
    await engine.submit(c.StartRun(id=run_id, name="bench", pool="claims"))
    started = time.perf_counter()
    (task,) = (await engine.submit(c.Claim(worker="bench", request=engine.secret(), pools=("claims",)))).tasks
    took = time.perf_counter() - started
    await engine.submit(c.Finish(task.lease, 1, c.Completed(PAYLOAD)))
    return took


def _burst(rig: Rig, path: Path, sleeping: int) -> Iterator[Row]:
    """Timers due one after the other, at 1,667 a second, while a worker claims and finishes what they wake."""
    count, seconds = rig.pick((10_000, 6), (100_000, 60))
    first_due = time.time_ns() // 1_000_000 + rig.pick(1_000, 6_000) + LEAD_MS
    first = seed.copies(path, sleeping, count, label="burst", due_at=first_due, step_us=seconds * 1_000_000 // count)
    late = time.time_ns() // 1_000_000 - first_due
    if late > 0:
        raise RuntimeError(f"the burst began {late} ms before the engine was opened")
    resumed, longest_ms = run(_finish_burst(path, first, first_due, count, seconds))
    with closing(SqliteStore(path).connect()) as db:
        fired = _fired(db, first)
    assert len(fired) == count, f"{len(fired)} of {count} timers fired"
    what = f"{count:,} timers in {seconds} s"
    note = f"when decided; the longest batch of the lane took {longest_ms:.0f} ms more"
    yield latencies(f"{what}: fired late by", fired, note)
    lags = [one / 1_000 for one in resumed]
    yield latencies(f"{what}: claimed late by", lags, "by the worker's clock, after the commit")
    ordered = sorted(resumed)
    p99 = ordered[int(0.99 * len(ordered))]
    yield Row(f"{what}: p99 of the claims", "ms", [p99], f"max {ordered[-1]:.0f}", at_most(1_000))


async def _finish_burst(path: Path, first: int, first_due: int, count: int, seconds: int) -> tuple[list[float], float]:
    """Milliseconds from due to claimed of each timer, and the longest batch."""
    lags: list[float] = []
    async with engine_on(path) as engine, asyncio.timeout(seconds + 60):
        hint = engine.ready_hint()
        while len(lags) < count:
            hint.clear()
            claim = c.Claim(worker="bench", request=engine.secret(), pools=("parked",), limit=200)
            claimed = await engine.submit(claim)
            now = time.time_ns() / 1_000_000
            places = (task.lease.run_no - first for task in claimed.tasks)
            lags += [now - first_due - place * seconds * 1_000 / count for place in places]
            ends = (engine.submit(c.Finish(task.lease, 1, c.Completed())) for task in claimed.tasks)
            await asyncio.gather(*ends)
            if not claimed.tasks:
                await _hinted(hint)
        return lags, engine.lanes.timings.longest_batch * 1_000


async def _hinted(hint: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(0.5):
            await hint.wait()
    except TimeoutError:
        return


def _fired(db: sqlite3.Connection, first: int) -> list[float]:
    """Seconds from due to fired, from the journal."""
    rows = db.execute(
        "select at - (data ->> 'due_at') from entry where run_no >= ? and kind = 'timer.fired'", (first,)
    ).fetchall()
    return [row[0] / 1_000 for row in rows]

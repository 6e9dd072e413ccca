"""Large databases fast: the engine makes one run, raw SQL makes copies of it, so the shape is the engine's own."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench.rig import engine_on, turns
from stepwell.model import commands as c
from stepwell.store.columns import columns
from stepwell.store.sqlite.store import SqliteStore

YEAR_MS = 365 * 86_400_000
CHUNK = 50_000


async def prototypes(place: Path | str, *, steps: int = 0) -> tuple[int, int]:
    """The numbers of two runs that the engine parked: one waits for a signal, one for a timer in a year."""
    async with engine_on(place) as engine:
        waiting, sleeping = await turns(engine, 2, "parked")
        await asyncio.gather(waiting.steps(engine, steps), sleeping.steps(engine, steps))
        await engine.submit(c.Park(waiting.lease, steps + 1, waiting.seen, ("signal:go",)))
        due_at = time.time_ns() // 1_000_000 + YEAR_MS
        await engine.submit(
            c.Park(sleeping.lease, steps + 1, sleeping.seen, ("timer:main/sleep#1",), due_at, "main/sleep#1")
        )
    return waiting.lease.run_no, sleeping.lease.run_no


def copies(path: Path, of: int, count: int, *, label: str, due_at: int | None = None, step_us: int = 0) -> int:
    """Copies a run with its entries and task `count` times; answers the number of the first copy.

    With `due_at` the i-th copy is due `step_us` microseconds after the one before it. No engine may be open.
    """
    with closing(SqliteStore(path, sync="off").connect()) as db:
        first = int(db.execute("select max(no) + 1 from run").fetchone()[0])
        due = "due_at" if due_at is None else f"{due_at} + i * {step_us} / 1000"
        for start in range(0, count, CHUNK):
            db.execute("begin immediate")
            _chunk(db, of, first + start, range(start, min(count, start + CHUNK)), label, due)
            db.execute("commit")
        db.execute("pragma wal_checkpoint(truncate)")
    return first


def _chunk(db: sqlite3.Connection, of: int, first: int, span: range, label: str, due: str) -> None:
    series = f"with recursive s(i) as (select {span.start} union all select i + 1 from s where i < {span.stop - 1})"
    number = f"{first} + i - {span.start}"
    timed = "case when due_at is null then null else " + due + " end"
    told = (
        f"case when kind = 'run.parked' and data like '%due_at%' then json_set(data, '$.due_at', {due}) else data end"
    )
    told = told if due != "due_at" else "data"
    swaps = {
        "run": {"no": number, "id": f"'{label}-' || i"},
        "entry": {"run_no": number, "data": told},
        "task": {"run_no": number, "due_at": timed},
    }
    for table, swap in swaps.items():
        names = columns(table)
        values = ", ".join(swap.get(name, f'"{name}"') for name in names)
        into = ", ".join(f'"{name}"' for name in names)
        if table == "task":
            into, values = f"no, {into}", f"({number}) << 20 | k, {values}"
        where = "no" if table == "run" else "run_no"
        # cross join: the series outside, so that copies are written in the order of their numbers
        source = f"s cross join {table} where {where} = {of}"
        db.execute(f"{series} insert into {table} ({into}) select {values} from {source}")

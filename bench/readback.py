"""Subject `readback`: a journal of 10,000 steps, scattered among 1,000,000 other entries, read through the store."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench import pages
from bench.floor import DATA
from bench.report import Row, at_most, latencies
from bench.rig import Rig, Turn, engine_on, run, turns
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.store.port import Reader
from stepwell.store.sqlite.store import SqliteStore

STEPS = 10_000


def measure(rig: Rig) -> Iterator[Row]:
    """Pages of a reader, and the claim that resumes the run, warm and cold."""
    others = rig.pick(300_000, 1_000_000)
    path = rig.fresh("readback")
    turn = run(_begin(path))
    _fill(path, turn, others)
    number, where = turn.lease.run_no, f"{STEPS:,} of {others:,}"
    with closing(SqliteStore(path).connect()) as db:
        floor = [_rows(db, number) for _ in range(rig.pick(4, 11))][1:]
    yield latencies(f"floor: its rows by sqlite3, {where}, warm", floor)
    with closing(SqliteStore(path).reader()) as reader:
        warm = [_pages(reader, number) for _ in range(rig.pick(4, 11))][1:]
    yield latencies(f"Reader.entries, pages of 1,000, {where}, warm", warm)
    colds, said = [], ""
    for _ in range(rig.pick(2, 5)):
        said = pages.cold(path)
        with closing(SqliteStore(path).reader()) as reader:
            colds.append(_pages(reader, number))
    yield latencies(f"Reader.entries, pages of 1,000, {where}, cold", colds, said)
    budget = at_most(300)
    yield latencies("claim that brings the journal, warm", run(_claims(path, turn, rig.pick(4, 11)))[1:], "", budget)
    said = pages.cold(path)
    yield latencies("claim that brings the journal, cold", run(_claims(path, turn, 1)), said)


async def _begin(path: Path) -> Turn:
    """A leased run with one step of its own, to which the others are added."""
    async with engine_on(path) as engine:
        (turn,) = await turns(engine, 1)
        await turn.step(engine)
    return turn


def _fill(path: Path, turn: Turn, others: int) -> None:
    """Adds entries to the run, one in so many, and folds them into its row; the rest belong to a thousand others."""
    stride, number, head = others // STEPS, turn.lease.run_no, turn.seen
    with closing(SqliteStore(path, sync="off").connect()) as db:

        def entries() -> Iterator[tuple[object, ...]]:
            for one in range(others):
                seq, run_no = divmod(one, 1_000)
                yield (
                    1_000_000 + run_no,
                    seq + 1,
                    "step.completed",
                    f"main/step#{seq}",
                    seq,
                    1,
                    1_700_000_000_000,
                    DATA,
                )
                if one % stride == 0:
                    at = head + 1 + one // stride
                    yield (number, at, "step.completed", f"main/step#{at}", at, 1, 1_700_000_000_000, DATA)

        db.execute("begin immediate")
        db.executemany("insert into entry values (?, ?, ?, ?, ?, ?, ?, ?)", entries())
        turn.seen, turn.n = head + STEPS, head + STEPS
        folded = (turn.seen, turn.seen, turn.n, turn.seen, STEPS * len(DATA), number)
        db.execute(
            "update run set head_seq = ?, wake_seq = ?, write_no = ?, write_seq = ?, journal_bytes = ? where no = ?",
            folded,
        )
        db.execute("commit")
        db.execute("pragma wal_checkpoint(truncate)")


def _rows(db: sqlite3.Connection, number: int) -> float:
    started = time.perf_counter()
    rows = db.execute("select * from entry where run_no = ? order by seq", (number,)).fetchall()
    took = time.perf_counter() - started
    assert len(rows) > STEPS, f"{len(rows)} rows"
    return took


def _pages(reader: Reader, number: int) -> float:
    started, after, count = time.perf_counter(), 0, 0
    while entries := reader.entries(number, after=after):
        after, count = entries[-1].seq, count + len(entries)
    assert count > STEPS, f"{count} entries"
    return time.perf_counter() - started


async def _claims(path: Path, turn: Turn, count: int) -> list[float]:
    """Gives the lease back and claims it again, with the whole journal, so many times."""
    took = []
    async with engine_on(path) as engine:
        for _ in range(count):
            await engine.submit(c.Release(turn.lease, turn.n + 1))
            # what the release wrote may still go to the log's file
            await asyncio.sleep(0.05)
            took.append(await _claim(engine, turn))
    return took


async def _claim(engine: Engine, turn: Turn) -> float:
    started = time.perf_counter()
    claimed = await engine.submit(c.Claim(worker="bench", request=engine.secret()))
    took = time.perf_counter() - started
    (task,) = claimed.tasks
    assert len(task.journal) > STEPS, f"{len(task.journal)} entries"
    turn.lease, turn.seen, turn.n = task.lease, task.seen, 0
    return took

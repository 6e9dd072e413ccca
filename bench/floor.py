"""The raw floor: the same rows in the same table, through sqlite3 alone, with the engine's own connection settings."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.rig import PAYLOAD
from stepwell.model.rows import Entry
from stepwell.store.sqlite.sql import sql
from stepwell.store.sqlite.store import SqliteStore

DATA = f'{{"result":{PAYLOAD}}}'
NOW = 1_700_000_000_000


class Floor:
    """Writes entries as the engine's schema has them. Every method answers the seconds that it took."""

    def __init__(self, path: Path) -> None:
        store = SqliteStore(path)
        store.migrate()
        self._db = store.connect()
        self._seq: dict[int, int] = {}
        acts = ("insert_entry", "advance_run", "insert_change", "raise_lane")
        self._insert, self._advance, self._change, self._lane = (sql(f"flush/{act}") for act in acts)

    def close(self) -> None:
        self._db.close()

    def one_row(self, commits: int) -> float:
        """One entry a commit: the least that makes a step durable."""
        return self._commits(commits, runs=1)

    def group(self, commits: int, runs: int = 100) -> float:
        """An entry for each of `runs` runs a commit."""
        return self._commits(commits, runs)

    def all_rows(self, commits: int) -> float:
        """One commit of each row that the engine writes for a step: entry, run, change, lane."""
        started = time.perf_counter()
        for _ in range(commits):
            self._step()
        return time.perf_counter() - started

    async def handed_over(self, commits: int) -> float:
        """As `all_rows`, each commit on a writer's thread, awaited on the event loop: what a lane cannot go below."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as writer:
            await loop.run_in_executor(writer, self._step)
            started = time.perf_counter()
            for _ in range(commits):
                await loop.run_in_executor(writer, self._step)
            return time.perf_counter() - started

    def _step(self) -> None:
        db, row = self._db, self._entry(1)
        db.execute("begin immediate")
        db.execute(self._insert, row)
        db.execute(self._advance, (1, row[1], row[1], 1, row[1], row[1], 0, 0, 64, NOW))
        db.execute(self._change, ("main", row[1], NOW, '{"runs":[[1,3,3]]}'))
        db.execute(self._lane, ("lane_floor", NOW))
        db.execute("commit")

    def _entry(self, run_no: int) -> tuple[object, ...]:
        seq = self._seq[run_no] = self._seq.get(run_no, 0) + 1
        entry = Entry(run_no, seq, "step.completed", f"main/step#{seq}", seq, 1, NOW, DATA)
        return (run_no, seq, entry.kind, entry.key, entry.n, entry.generation, entry.at, entry.data)

    def _commits(self, commits: int, runs: int) -> float:
        db, insert = self._db, self._insert
        started = time.perf_counter()
        for _ in range(commits):
            db.execute("begin immediate")
            db.executemany(insert, [self._entry(run_no) for run_no in range(1, runs + 1)])
            db.execute("commit")
        return time.perf_counter() - started

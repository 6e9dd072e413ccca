"""The raw floor: the same rows in the same table, through sqlite3 alone, with the engine's own connection settings."""

import time
from pathlib import Path

from bench.rig import PAYLOAD
from stepwell.model.rows import Entry
from stepwell.store.sqlite.sql import sql
from stepwell.store.sqlite.store import SqliteStore

DATA = f'{{"result":{PAYLOAD}}}'


class Floor:
    """Writes entries as the engine's schema has them. Every method answers the seconds that it took."""

    def __init__(self, path: Path) -> None:
        store = SqliteStore(path)
        store.migrate()
        self._db = store.connect()
        self._seq: dict[int, int] = {}
        self._insert = sql("flush/insert_entry")

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
        db, now = self._db, 1_700_000_000_000
        advance, change, lane = (sql(f"flush/{act}") for act in ("advance_run", "insert_change", "raise_lane"))
        touched = '{"runs":{"main":[[1,3,3]]},"tables":[]}'
        started = time.perf_counter()
        for _ in range(commits):
            row = self._entry(1)
            db.execute("begin immediate")
            db.execute(self._insert, row)
            db.execute(advance, (1, row[1], row[1], 1, row[1], row[1], 0, 0, 64, now))
            db.execute(change, (now, touched))
            db.execute(lane, ("lane_floor", now))
            db.execute("commit")
        return time.perf_counter() - started

    def _entry(self, run_no: int) -> tuple[object, ...]:
        seq = self._seq[run_no] = self._seq.get(run_no, 0) + 1
        entry = Entry(run_no, seq, "step.completed", f"main/step#{seq}", seq, 1, 1_700_000_000_000, DATA)
        return (run_no, seq, entry.kind, entry.key, entry.n, entry.generation, entry.at, entry.data)

    def _commits(self, commits: int, runs: int) -> float:
        db, insert = self._db, self._insert
        started = time.perf_counter()
        for _ in range(commits):
            db.execute("begin immediate")
            db.executemany(insert, [self._entry(run_no) for run_no in range(1, runs + 1)])
            db.execute("commit")
        return time.perf_counter() - started

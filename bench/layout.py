"""Subject `layout`: three layouts of the journal, appended to by many runs and read back one run at a time.

The first is today's; a decision between them needs both halves. All have the columns of `entry` and the same rows.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from bench import pages
from bench.floor import DATA
from bench.report import Row, latencies
from bench.rig import Rig
from stepwell.store.sqlite.store import SqliteStore

_COLUMNS = """kind text not null, key text, n integer not null, generation integer not null, at integer not null,
    data text not null"""
READ_BACK = 10_000


class Layout(Struct, frozen=True):
    """How entries lie in the file."""

    name: str
    ddl: tuple[str, ...]
    insert: str
    read: str


LAYOUTS = (
    Layout(
        "append + index",
        (
            f"create table j (run_no integer not null, seq integer not null, {_COLUMNS}) strict",
            "create unique index j_seq on j (run_no, seq)",
        ),
        "insert into j values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        "select * from j where run_no = ?1 order by seq",
    ),
    Layout(
        "without rowid",
        (
            f"""create table j (run_no integer not null, seq integer not null, {_COLUMNS}, primary key (run_no, seq))
            strict, without rowid""",
        ),
        "insert into j values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        "select * from j where run_no = ?1 order by seq",
    ),
    Layout(
        "rowid = run << 20 | seq",
        (f"create table j (no integer primary key, {_COLUMNS}) strict",),
        "insert into j values (?1 << 20 | ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        "select no >> 20, no & 1048575, * from j where no between ?1 << 20 and (?1 << 20 | 1048575) order by no",
    ),
)


def measure(rig: Rig) -> Iterator[Row]:
    """Appends to an empty table, then a full table, then reads from it. Layouts take turns in every repetition."""
    for callers in (100, 1_000):
        yield from _compare(rig, f"long runs, {callers:,} at once", callers, steps=rig.pick(60, 200))
    yield from _compare(rig, "runs of 20 steps, 100 at once", 100, steps=rig.pick(100, 400), life=20)
    for layout in LAYOUTS:
        yield from _full(rig, layout)


def _compare(rig: Rig, what: str, callers: int, *, steps: int, life: int = 0) -> Iterator[Row]:
    """Rows a second of each layout, and the bytes that a commit put into the log."""
    rates: dict[str, list[float]] = {layout.name: [] for layout in LAYOUTS}
    logged: dict[str, float] = {}
    commits = max(20, steps * 100 // callers)
    for _ in range(rig.pick(3, 7)):
        for layout in LAYOUTS:
            path = _made(rig, layout)
            with closing(SqliteStore(path).connect()) as db:
                seconds = _append(db, layout, callers, commits, life)
                rates[layout.name].append(callers * commits / seconds)
                logged[layout.name] = _log_bytes(db, path, layout, callers, commits, life)
    for layout in LAYOUTS:
        note = f"{logged[layout.name]:,.0f} B of log an entry"
        yield Row(f"append, {what}: {layout.name}", "rows/s", rates[layout.name], note)


def _made(rig: Rig, layout: Layout) -> Path:
    path = rig.fresh("layout")
    with closing(SqliteStore(path).connect()) as db:
        for statement in layout.ddl:
            db.execute(statement)
    return path


def _append(db: sqlite3.Connection, layout: Layout, callers: int, commits: int, life: int, first: int = 0) -> float:
    started = time.perf_counter()
    for commit in range(first, first + commits):
        db.execute("begin immediate")
        db.executemany(layout.insert, _rows(callers, commit, life))
        db.execute("commit")
    return time.perf_counter() - started


def _rows(callers: int, commit: int, life: int) -> list[tuple[object, ...]]:
    """An entry of every caller's run; with `life`, a caller begins a new run after so many entries."""
    age, seq = divmod(commit, life) if life else (0, commit)
    runs = range(10 + age * callers, 10 + (age + 1) * callers)
    at = 1_700_000_000_000 + commit
    return [(no, seq + 1, "step.completed", f"main/step#{seq}", seq, 1, at, DATA) for no in runs]


def _log_bytes(db: sqlite3.Connection, path: Path, layout: Layout, callers: int, commits: int, life: int) -> float:
    """What ten more commits put into the log, an entry."""
    db.execute("pragma wal_checkpoint(truncate)")
    _append(db, layout, callers, 10, life, first=commits)
    return path.with_name(path.name + "-wal").stat().st_size / (10 * callers)


def _full(rig: Rig, layout: Layout) -> Iterator[Row]:
    """A run of 10,000 entries scattered among those of a thousand others: appended to, and read back."""
    path = _made(rig, layout)
    others = rig.pick(300_000, 1_000_000)
    with closing(SqliteStore(path).connect()) as db:
        _fill(db, layout, others)
        size = path.stat().st_size
        seconds = [_append(db, layout, 100, 20, 0, first=1_000_000 + 20 * one) for one in range(rig.pick(3, 10))]
        yield Row(f"append to the full table: {layout.name}", "rows/s", [2_000 / one for one in seconds])
        # one reading to warm, then those that count
        warm = [_read(db, layout) for _ in range(rig.pick(4, 11))][1:]
    yield latencies(f"read {READ_BACK:,} of {others:,} warm: {layout.name}", warm, f"{size / others:,.0f} B an entry")
    colds, said = [], ""
    for _ in range(rig.pick(2, 5)):
        said = pages.cold(path)
        with closing(SqliteStore(path).connect()) as db:
            colds.append(_read(db, layout))
    yield latencies(f"read {READ_BACK:,} of {others:,} cold: {layout.name}", colds, said)


def _fill(db: sqlite3.Connection, layout: Layout, others: int) -> None:
    """Run 1 has every n-th entry, so that its 10,000 lie all over the file; a thousand runs share the rest."""
    stride = others // READ_BACK + 1
    db.execute("pragma synchronous = off")
    db.execute("begin immediate")
    seq: dict[int, int] = {}

    def entries() -> Iterator[tuple[object, ...]]:
        for number in range(others + READ_BACK):
            no = 1 if number % stride == 0 else 10 + number * 7_919 % 1_000
            seq[no] = at = seq.get(no, 0) + 1
            yield (no, at, "step.completed", f"main/step#{at}", at, 1, 1_700_000_000_000, DATA)

    db.executemany(layout.insert, entries())
    db.execute("commit")
    db.execute("pragma wal_checkpoint(truncate)")
    db.execute("pragma synchronous = full")


def _read(db: sqlite3.Connection, layout: Layout) -> float:
    started = time.perf_counter()
    rows = db.execute(layout.read, (1,)).fetchall()
    took = time.perf_counter() - started
    assert [row[1] for row in rows[-1:]] == [READ_BACK], f"{len(rows)} rows"
    return took

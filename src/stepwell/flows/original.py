"""Reading the database of codex-flow-systemd-local, without disturbing it (source: spec codex-flows 4.2).

What is read is a copy, taken at one moment: the original's writers do not wait for locks, they fail. So a lock on its
file is held only while its pages are copied. `command_json` is never read: it holds values of secrets (fault 17).
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from stepwell.model.errors import Invalid, TooLarge, Unavailable, Unknown

FILE = "flow-backend.sqlite"
EVENT = ("id", "type", "received_at", "payload_json", "raw_json", "created_at")
RUN = (
    "id", "event_id", "flow_name", "step_name", "status", "backend", "executor", "unit", "event_path", "result_json",
    "error", "created_at", "started_at", "completed_at",
)  # fmt: skip
PAGE = 20
BUSY_MS = 10_000
#: What is read of one event: so many runs, and so much that they all said.
MAX_RUNS = 1_000
MAX_BYTES = 64 * 1024 * 1024
Row = dict[str, Any]


def last_event(path: Path) -> str | None:
    """The id of the event that was stored last; None when there is none, or no such database.

    One look at the end of the table, which holds the original up for no longer than that.
    """
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("select id from flow_events order by rowid desc limit 1").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


class Counts(Struct, frozen=True):
    """How many rows there are."""

    events: int
    runs: int


class Original:
    """The tables, each text as the bytes that it is. Output is cut when it is read: `stdout_cut` says so."""

    def __init__(self, db: sqlite3.Connection, path: Path, *, output_bytes: int) -> None:
        self._db, self.path, self._limit = db, path, output_bytes
        db.text_factory = bytes
        for table, needed in (("flow_events", EVENT), ("flow_runs", RUN)):
            _need_columns(db, path, table, needed)

    def counts(self) -> Counts:
        row = self._db.execute("select (select count(*) from flow_events), (select count(*) from flow_runs)")
        return Counts(*row.fetchone())

    def events(self) -> Iterator[list[tuple[int, Row]]]:
        """All events with their row numbers, oldest first, in pages."""
        columns = ", ".join(f"cast({name} as text)" for name in EVENT)
        query = f"select rowid, {columns} from flow_events order by created_at, rowid"  # noqa: S608 - our own names
        with closing(self._db.execute(query)) as found:
            while page := found.fetchmany(PAGE):
                yield [(row[0], dict(zip(EVENT, row[1:], strict=True))) for row in page]

    def runs(self, event_id: bytes) -> list[Row]:
        """The runs of an event, oldest first. `TooLarge` for more than `MAX_RUNS`."""
        of_event = "from flow_runs where event_id = cast(?1 as text)"
        (count,) = self._db.execute(f"select count(*) {of_event}", (event_id,)).fetchone()
        if count > MAX_RUNS:
            raise TooLarge(f"the event has {count:,} runs, the limit is {MAX_RUNS:,}", size=count, limit=MAX_RUNS)
        limit = min(self._limit, MAX_BYTES // max(1, 2 * count))
        said = "substr(cast({0} as blob), 1, ?2), coalesce(length(cast({0} as blob)), 0) > ?2"
        texts = [*(f"cast({name} as text)" for name in RUN), said.format("stdout"), said.format("stderr")]
        query = f"select {', '.join(texts)} {of_event} order by created_at, rowid"
        names = (*RUN, "stdout", "stdout_cut", "stderr", "stderr_cut")
        return [dict(zip(names, row, strict=True)) for row in self._db.execute(query, (event_id, limit))]

    def strays(self) -> Iterator[bytes | None]:
        """The ids of runs whose event is not there."""
        known = "select id from flow_events where id is not null"
        for row in self._db.execute(f"select cast(id as text) from flow_runs where event_id not in ({known})"):  # noqa: S608
            yield row[0]

    def times(self) -> Iterator[tuple[bytes | None, ...]]:
        """(event created, run status, run created, run started, run ended) of everything; no run: all None."""
        query = (
            "select e.created_at, r.status, r.created_at, r.started_at, r.completed_at "
            "from flow_events e left join flow_runs r on r.event_id = e.id"
        )
        with closing(self._db.execute(query)) as found:
            yield from found


@contextmanager
def open_original(folder: Path, *, output_bytes: int) -> Iterator[Original]:
    """The database in the data folder of the original, as it is now. Raises `Unknown`, `Invalid`, `Unavailable`."""
    path = folder if folder.is_file() else folder / FILE
    if not path.is_file():
        hint = "Name the original's --data-dir; unless it was told otherwise that is .codex/flow-backend."
        raise Unknown(f"no database {path}", hint=hint, path=str(path))
    with tempfile.TemporaryDirectory(prefix="stepwell-import-") as space:
        copy = Path(space) / FILE
        try:
            _copy(path, copy)
            with closing(sqlite3.connect(copy)) as db:
                db.execute("pragma query_only = on")
                yield Original(db, path, output_bytes=output_bytes)
        except sqlite3.DatabaseError as error:
            raise Unavailable(
                f"cannot read {path}: {error}", hint="Stop the original, check the file with sqlite3, and try again."
            ) from error


def _copy(path: Path, copy: Path) -> None:
    """All pages under one lock. A transaction that a crash has left behind is undone in the copy, not in the file."""
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(copy)) as target:
            source.execute(f"pragma busy_timeout = {BUSY_MS}")
            source.backup(target)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
        for side in ("", "-journal", "-wal"):
            if path.with_name(path.name + side).exists():
                shutil.copyfile(path.with_name(path.name + side), copy.with_name(copy.name + side))


def _need_columns(db: sqlite3.Connection, path: Path, table: str, needed: Sequence[str]) -> None:
    there = {name.decode() for _, name, *_ in db.execute(f"pragma table_info({table})")}
    missing = [name for name in needed if name not in there]
    if missing:
        raise Invalid(
            f"{path} is no database of codex-flow-systemd-local: {table} has no {', '.join(missing)}",
            hint="Name the data folder of codex-flow-systemd-local.",
        )

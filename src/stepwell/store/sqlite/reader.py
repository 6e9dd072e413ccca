"""A reading connection to a SQLite file. Payloads come resolved."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from stepwell.kernel.calls import AppTables
from stepwell.model.entries import RunRestarted, StateSet, text_of
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Change, Entry, Event, Manifest, Output, Pool, Run, Task
from stepwell.store.port import LOOKED_AT, Page, RunFilter
from stepwell.store.sqlite.guarded import Guarded
from stepwell.store.sqlite.sql import sql

R = TypeVar("R", bound=Struct)
LAST = (1 << 63) - 1
_UNREADABLE = frozenset((
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB,
))  # fmt: skip
_UNREADABLE_HINT = (
    "Check the disk; `stepwell db verify` tells what is damaged, `stepwell db restore` brings a backup in."
)
_json = msgspec.json.Encoder().encode


def text_of_blob(db: sqlite3.Connection, run_no: int, event_no: int, stored: str | None) -> str | None:
    """A payload as it was given, wherever it is kept."""
    if stored is None or not stored.startswith("@"):
        return stored
    row = db.execute(sql("list/blob"), (run_no, event_no, stored[1:])).fetchone()
    return None if row is None else str(row[0])


def resolve_entries(db: sqlite3.Connection, entries: list[Entry]) -> list[Entry]:
    """Entries with their data in full."""
    for entry in entries:
        if entry.data.startswith("@"):
            entry.data = text_of_blob(db, entry.run_no, 0, entry.data) or ""
    return entries


def resolve_event(db: sqlite3.Connection, event: Event) -> Event:
    """An event with its payload in full."""
    event.payload = text_of_blob(db, 0, event.no, event.payload) or ""
    return event


def pool_of(row: Sequence[Any]) -> Pool:
    """A pool, whose last column is a truth value that SQLite keeps as a number."""
    pool = Pool(*row)
    pool.paused = bool(pool.paused)
    return pool


class SqliteReader:
    """Each method is one read transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._app: Guarded | None = None
        db.execute("pragma query_only = on")

    @property
    def app(self) -> AppTables:
        if self._app is None:
            self._app = Guarded(self._db, "read")
        return self._app

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Raises `Unavailable` for a file that cannot be read now: that is no bug, and may pass."""
        try:
            self._db.execute("begin")
            try:
                yield
            finally:
                self._db.execute("rollback")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF not in _UNREADABLE:
                raise
            raise Unavailable(f"the store cannot be read: {error}", hint=_UNREADABLE_HINT) from error

    def _rows(self, row: type[R], act: str, *values: Any) -> list[R]:
        return [row(*one) for one in self._db.execute(sql(act), values)]

    def _runs(self, act: str, *values: Any) -> list[Run]:
        runs = self._rows(Run, act, *values)
        for run in runs:
            run.input = text_of_blob(self._db, run.no, 0, run.input)
            run.result = text_of_blob(self._db, run.no, 0, run.result)
            run.error = text_of_blob(self._db, run.no, 0, run.error)
        return runs

    def _events(self, act: str, *values: Any) -> list[Event]:
        return [resolve_event(self._db, event) for event in self._rows(Event, act, *values)]

    def run(self, scope: str, run_id: str) -> Run | None:
        return next(iter(self._runs("list/run", scope, run_id)), None)

    def run_by_no(self, number: int) -> Run | None:
        return next(iter(self._runs("list/run_by_no", number)), None)

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page:
        floor = self._floor(before) if where.tags else 0
        statement, values = runs_statement(where, before, limit + 1, floor)
        runs = [Run(*row) for row in self._db.execute(statement, values)]
        for run in runs:
            for name in ("input", "result", "error"):
                setattr(run, name, text_of_blob(self._db, run.no, 0, getattr(run, name)))
        found = _page(runs, limit)
        if not where.tags:
            return found
        exact = [run for run in found.rows if where.fits_tags(run.tags)]  # to SQLite, a text of JSON ends at a NUL
        return Page(exact, found.cursor or floor or None)

    def _floor(self, before: int | None) -> int:
        """Down to which number a page looks for tags; 0 when that is the first."""
        last = self._db.execute(sql("list/last_run")).fetchone()[0] or 0
        floor = min(last + 1, LAST if before is None else before) - LOOKED_AT
        return floor if floor > 1 else 0

    def event(self, scope: str, event_id: str) -> Event | None:
        return next(iter(self._events("list/event", scope, event_id)), None)

    def event_by_no(self, number: int) -> Event | None:
        return next(iter(self._events("list/event_by_no", number)), None)

    def list_events(self, scope: str, *, of_type: str | None = None, limit: int, before: int | None = None) -> Page:
        start = LAST if before is None else before
        if of_type is None:
            return _page(self._events("list/events", scope, start, limit + 1), limit)
        return _page(self._events("list/events_of_type", scope, start, limit + 1, of_type), limit)

    def entries(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Entry]:
        return resolve_entries(self._db, self._rows(Entry, "list/entries", run_no, after, limit))

    def state(self, run_no: int, name: str) -> str | None:
        ceiling = LAST
        for row in self._db.execute(sql("list/state"), (run_no,)):
            entry = Entry(*row)
            data = text_of_blob(self._db, run_no, 0, entry.data) if entry.seq <= ceiling else entry.data
            if entry.kind == RunRestarted.kind:
                ceiling = min(ceiling, msgspec.json.decode(entry.data, type=RunRestarted).keep_seq)
            elif entry.seq <= ceiling and (body := msgspec.json.decode(data or "", type=StateSet)).name == name:
                return text_of(body.value)
        return None

    def tasks_of(self, run_no: int) -> list[Task]:
        return self._rows(Task, "list/tasks_of", run_no)

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        return self._rows(Output, "list/output", run_no, after, limit)

    def pools(self, scope: str) -> list[Pool]:
        return [pool_of(row) for row in self._db.execute(sql("list/pools"), (scope,))]

    def manifests(self, scope: str) -> list[Manifest]:
        return self._rows(Manifest, "list/manifests", scope)

    def meta(self, key: str) -> int | None:
        row = self._db.execute(sql("list/meta"), (key,)).fetchone()
        return None if row is None else int(row[0])

    def changes(self, scope: str, *, after: int, limit: int = 1_000) -> list[Change]:
        return self._rows(Change, "list/changes", scope, after, limit)

    def head(self, scope: str) -> int:
        return int(self._db.execute(sql("list/head"), (scope,)).fetchone()[0])

    def floor(self, scope: str) -> int:
        return int(self._db.execute(sql("list/floor"), (scope,)).fetchone()[0])

    def others(self, lanes: Collection[str]) -> int:
        return int(self._db.execute(sql("list/others"), (_json(list(lanes)).decode(),)).fetchone()[0])

    def next_due(self) -> int | None:
        at = self._db.execute(sql("list/next_due")).fetchone()[0]
        return None if at is None else int(at)

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        return self._runs("list/scan_runs", after, limit)

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]:
        return self._events("list/scan_events", after, limit)

    def orphans(self, limit: int = 100) -> list[str]:
        return [row[0] for row in self._db.execute(sql("list/orphans"), (limit,))]

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        counts = dict.fromkeys(events, 0)
        counts.update(self._db.execute(sql("list/first_run_counts"), (_json(list(events)).decode(),)))
        return counts

    def messages_to(self, runs: Collection[int]) -> set[int]:
        return {row[0] for row in self._db.execute(sql("list/messages_to"), (_json(list(runs)).decode(),))}

    def counts(self) -> dict[str, int]:
        return dict([*self._db.execute(sql("list/run_counts")), *self._db.execute(sql("list/task_counts"))])

    def close(self) -> None:
        self._db.close()


def runs_statement(where: RunFilter, before: int | None, limit: int, floor: int = 0) -> tuple[str, dict[str, Any]]:
    """The list of runs from number `floor` on, newest first, by the index that fits the filter."""
    # The plus keeps the planner from the index on (scope, id), which would read and sort every run of the scope.
    tests = ["+scope = :scope", "no < :before"]
    values: dict[str, Any] = {"scope": where.scope, "before": LAST if before is None else before, "limit": limit}
    for name in ("status", "result_status", "name", "event_no", "hold"):
        value = getattr(where, name)
        if value is not None:
            tests.append(f"{name} = :{name}")
            values[name] = value
    if where.event_no is not None:
        tests.append("event_no is not null")
    if where.status in ("queued", "running", "sleeping", "waiting"):
        tests.append("ended_at is null")
    if where.status in ("failed", "canceled"):
        tests.append("status in ('failed', 'canceled')")
    if where.hold is not None:
        tests.append("hold is not null")
    if where.attention:
        tests.append("(hold <> 'paused' or result_status in ('needs_intervention', 'blocked', 'failed'))")
    if floor:
        tests.append("no >= :floor")
        values["floor"] = floor
    values["tags"] = _json(dict(where.tags)).decode() if where.tags else None
    return sql("list/runs").replace("/* tests */", " and ".join(tests)), values


def _page(rows: list[Any], limit: int) -> Page:
    shown = rows[:limit]
    return Page(shown, shown[-1].no if len(rows) > limit else None)

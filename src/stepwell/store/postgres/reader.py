"""A reading connection to a PostgreSQL server. Payloads come resolved."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar

import msgspec
import psycopg
from msgspec import Struct

from stepwell.kernel.calls import AppTables
from stepwell.model.entries import RunRestarted, StateSet, text_of
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.rows import Change, Entry, Event, Manifest, Output, Pool, Run, Task
from stepwell.store.port import LOOKED_AT, Page, RunFilter
from stepwell.store.postgres.app_tables import PostgresTables
from stepwell.store.postgres.connection import Connect
from stepwell.store.postgres.exchange import Exchange
from stepwell.store.postgres.sql import sql
from stepwell.store.postgres.text import given_text, storable
from stepwell.store.postgres.told import said_by

R = TypeVar("R", bound=Struct)
#: Runs an act with its values, and tells errors as whoever owns the connection does.
Fetch: TypeAlias = Callable[..., list[Any]]
LAST = (1 << 63) - 1
UNREADABLE_HINT = "Check that the server runs and takes connections; nothing that was answered is lost."
#: jsonb takes no NUL, so another character stands for it on both sides; the rows that come are compared exactly.
_TAGGED = r"replace(tags, '\u0000', '\u0001')::jsonb @> replace($, '\u0000', '\u0001')::jsonb"
_json = msgspec.json.Encoder().encode


def text_of_blob(fetch: Fetch, run_no: int, event_no: int, stored: str | None) -> str | None:
    """A payload as it was given, wherever it is kept."""
    if stored is None or not stored.startswith("@"):
        return stored
    rows = fetch("list/blob", run_no, event_no, stored[1:])
    return str(rows[0][0]) if rows else None


def resolve_entries(fetch: Fetch, entries: list[Entry]) -> list[Entry]:
    """Entries with their data in full."""
    for entry in entries:
        if entry.data.startswith("@"):
            entry.data = text_of_blob(fetch, entry.run_no, 0, entry.data) or ""
    return entries


def resolve_event(fetch: Fetch, event: Event) -> Event:
    """An event with its payload in full."""
    event.payload = text_of_blob(fetch, 0, event.no, event.payload) or ""
    return event


class PostgresReader:
    """Each method reads what is committed when it is called. Errors of the server come as `Unavailable`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._link = Exchange(connect())
        self._inside = False  # of a snapshot
        self.app: AppTables = PostgresTables(lambda: self._link, "read", self._around)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._execute("begin isolation level repeatable read read only", ())
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            if not self._link.db.closed:
                self._execute("rollback", ())

    def _around(self) -> AbstractContextManager[None]:
        """A snapshot, unless there is one."""
        return nullcontext() if self._inside else self.snapshot()

    def _execute(self, statement: str, values: Any) -> list[Any]:
        try:
            return self._fetched(statement, values)
        except (psycopg.DataError, UnicodeEncodeError) as error:
            hint = "Leave out NUL, halves of surrogate pairs, and numbers past 63 bits."
            raise Invalid(f"nothing in the store can have such a value: {error}", hint=hint) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable(f"the store cannot be read: {said_by(error)}", hint=UNREADABLE_HINT) from error

    def _fetched(self, statement: str, values: Any) -> list[Any]:
        """What the server answers; if the connection turns out to be cut, what it answers on a new one."""
        fresh = self._link.db.closed and not self._inside
        if fresh:
            self._link = Exchange(self._connect())
        try:
            return self._link.rows(statement, values)
        except psycopg.OperationalError:
            if fresh or self._inside or not self._link.db.closed:
                raise
            return self._fetched(statement, values)

    def _all(self, act: str, *values: Any) -> list[Any]:
        return self._execute(sql(act), values)

    def _rows(self, row: type[R], act: str, *values: Any) -> list[R]:
        return [row(*one) for one in self._all(act, *values)]

    def _full(self, runs: list[Run]) -> list[Run]:
        for run in runs:
            run.input = text_of_blob(self._all, run.no, 0, run.input)
            run.result = text_of_blob(self._all, run.no, 0, run.result)
            run.error = text_of_blob(self._all, run.no, 0, run.error)
        return runs

    def _runs(self, act: str, *values: Any) -> list[Run]:
        return self._full(self._rows(Run, act, *values))

    def _events(self, act: str, *values: Any) -> list[Event]:
        return [resolve_event(self._all, event) for event in self._rows(Event, act, *values)]

    def run(self, scope: str, run_id: str) -> Run | None:
        return next(iter(self._runs("list/run", scope, run_id)), None) if storable(run_id) else None

    def run_by_no(self, number: int) -> Run | None:
        return next(iter(self._runs("list/run_by_no", number)), None)

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page:
        floor = self._floor(before) if where.tags else 0
        statement, values = runs_statement(where, before, limit + 1, floor)
        runs = self._full([Run(*row) for row in self._execute(statement, values)])
        found = _page(runs, limit)
        if not where.tags:
            return found
        exact = [run for run in found.rows if where.fits_tags(run.tags)]
        return Page(exact, found.cursor or floor or None)

    def _floor(self, before: int | None) -> int:
        """Down to which number a page looks for tags; 0 when that is the first."""
        last = self._all("list/last_run")[0][0] or 0
        floor = int(min(last + 1, LAST if before is None else before) - LOOKED_AT)
        return floor if floor > 1 else 0

    def event(self, scope: str, event_id: str) -> Event | None:
        return next(iter(self._events("list/event", scope, event_id)), None) if storable(event_id) else None

    def event_by_no(self, number: int) -> Event | None:
        return next(iter(self._events("list/event_by_no", number)), None)

    def list_events(self, scope: str, *, of_type: str | None = None, limit: int, before: int | None = None) -> Page:
        start = LAST if before is None else before
        if of_type is None:
            return _page(self._events("list/events", scope, start, limit + 1), limit)
        return _page(self._events("list/events_of_type", scope, start, limit + 1, of_type), limit)

    def entries(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Entry]:
        return resolve_entries(self._all, self._rows(Entry, "list/entries", run_no, after, limit))

    def state(self, run_no: int, name: str) -> str | None:
        ceiling = LAST
        for entry in self._rows(Entry, "list/state", run_no):
            if entry.kind == RunRestarted.kind:
                ceiling = min(ceiling, msgspec.json.decode(entry.data, type=RunRestarted).keep_seq)
            elif entry.seq <= ceiling:
                data = text_of_blob(self._all, run_no, 0, entry.data) or ""
                if (body := msgspec.json.decode(data, type=StateSet)).name == name:
                    return text_of(body.value)
        return None

    def tasks_of(self, run_no: int) -> list[Task]:
        return self._rows(Task, "list/tasks_of", run_no)

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        rows = self._rows(Output, "list/output", run_no, after, limit)
        for row in rows:
            row.text = given_text(row.text)
        return rows

    def pools(self, scope: str) -> list[Pool]:
        return self._rows(Pool, "list/pools", scope)

    def manifests(self, scope: str) -> list[Manifest]:
        return self._rows(Manifest, "list/manifests", scope)

    def meta(self, key: str) -> int | None:
        rows = self._all("list/meta", key)
        return int(rows[0][0]) if rows else None

    def changes(self, scope: str, *, after: int, limit: int = 1_000) -> list[Change]:
        return self._rows(Change, "list/changes", scope, after, limit)

    def head(self, scope: str) -> int:
        return int(self._all("list/head", scope)[0][0])

    def floor(self, scope: str) -> int:
        return int(self._all("list/floor", scope)[0][0])

    def others(self, lanes: Collection[str]) -> int:
        return int(self._all("list/others", list(lanes))[0][0])

    def next_due(self) -> int | None:
        at = self._all("list/next_due")[0][0]
        return None if at is None else int(at)

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        return self._runs("list/scan_runs", after, limit)

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]:
        return self._events("list/scan_events", after, limit)

    def orphans(self, limit: int = 100) -> list[str]:
        return [row[0] for row in self._all("list/orphans", limit)]

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        return {**dict.fromkeys(events, 0), **dict(self._all("list/first_run_counts", list(events)))}

    def messages_to(self, runs: Collection[int]) -> set[int]:
        return {row[0] for row in self._all("list/messages_to", list(runs))}

    def counts(self) -> dict[str, int]:
        return dict([*self._all("list/run_counts"), *self._all("list/task_counts")])

    def close(self) -> None:
        self._link.db.close()


def runs_statement(where: RunFilter, before: int | None, limit: int, floor: int = 0) -> tuple[str, list[Any]]:
    """The list of runs from number `floor` on, newest first, with its values."""
    values: list[Any] = [limit]

    def value(given: Any) -> str:
        values.append(given)
        return f"${len(values)}"

    tests = [f"scope = {value(where.scope)}", f"no < {value(LAST if before is None else before)}"]
    for name in ("status", "result_status", "name", "event_no", "hold"):
        wanted = getattr(where, name)
        if wanted is not None:
            tests.append(f"{name} = {value(wanted)}")
    if where.status in ("queued", "running", "sleeping", "waiting"):
        tests.append("ended_at is null")
    if where.status in ("failed", "canceled"):
        tests.append("bad")
    if where.attention:
        tests.append("(hold <> 'paused' or result_status in ('needs_intervention', 'blocked', 'failed'))")
    if floor:
        tests.append(f"no >= {value(floor)}")
    if where.tags:
        tests.append(_TAGGED.replace("$", value(_json(dict(where.tags)).decode())))
    return sql("list/runs").replace("/* tests */", " and ".join(tests)), values


def _page(rows: list[Any], limit: int) -> Page:
    shown = rows[:limit]
    return Page(shown, shown[-1].no if len(rows) > limit else None)

"""What the readers of both SQL stores do alike: acts by their names, payloads in full."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from stepwell.model.entries import RunRestarted, StateSet, text_of
from stepwell.model.rows import Change, Entry, Event, Manifest, Output, Pool, Run, Task
from stepwell.store.port import LOOKED_AT, Page, RunFilter

R = TypeVar("R", bound=Struct)
#: Runs an act with its values, and tells errors as whoever owns the connection does.
Fetch: TypeAlias = Callable[..., Iterable[Any]]
LAST = (1 << 63) - 1


def text_of_blob(fetch: Fetch, run_no: int, event_no: int, stored: str | None) -> str | None:
    """A payload as it was given, wherever it is kept."""
    if stored is None or not stored.startswith("@"):
        return stored
    row = next(iter(fetch("list/blob", run_no, event_no, stored[1:])), None)
    return None if row is None else str(row[0])


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


class SqlReader(ABC):
    """The part of the port's `Reader` that is the same in both; what differs is at the end, for each store to say."""

    def run(self, scope: str, run_id: str) -> Run | None:
        return next(iter(self._runs("list/run", scope, run_id)), None)

    def run_by_no(self, number: int) -> Run | None:
        return next(iter(self._runs("list/run_by_no", number)), None)

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page:
        floor = self._floor(before) if where.tags else 0
        found = _page(self._full(self._listed(where, before, limit + 1, floor)), limit)
        if not where.tags:
            return found
        exact = [run for run in found.rows if where.fits_tags(run.tags)]  # no store compares what is behind a NUL
        return Page(exact, found.cursor or floor or None)

    def _floor(self, before: int | None) -> int:
        """Down to which number a page looks for tags; 0 when that is the first."""
        last = self._one("list/last_run") or 0
        floor = int(min(last + 1, LAST if before is None else before) - LOOKED_AT)
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
        return resolve_entries(self._each, self._rows(Entry, "list/entries", run_no, after, limit))

    def state(self, run_no: int, name: str) -> str | None:
        ceiling = LAST
        for row in self._each("list/state", run_no):
            entry = Entry(*row)
            data = text_of_blob(self._each, run_no, 0, entry.data) if entry.seq <= ceiling else entry.data
            if entry.kind == RunRestarted.kind:
                ceiling = min(ceiling, msgspec.json.decode(entry.data, type=RunRestarted).keep_seq)
            elif entry.seq <= ceiling and (body := msgspec.json.decode(data or "", type=StateSet)).name == name:
                return text_of(body.value)
        return None

    def tasks_of(self, run_no: int, until: int | None = None) -> list[Task]:
        return self._rows(Task, "list/tasks_of", run_no, until or run_no)

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        return self._rows(Output, "list/output", run_no, after, limit)

    def pools(self, scope: str) -> list[Pool]:
        return self._rows(Pool, "list/pools", scope)

    def manifests(self, scope: str) -> list[Manifest]:
        return self._rows(Manifest, "list/manifests", scope)

    def meta(self, key: str) -> int | None:
        value = self._one("list/meta", key)
        return None if value is None else int(value)

    def changes(self, scope: str, *, after: int, limit: int = 1_000) -> list[Change]:
        return self._rows(Change, "list/changes", scope, after, limit)

    def head(self, scope: str) -> int:
        return int(self._one("list/head", scope))

    def floor(self, scope: str) -> int:
        return int(self._one("list/floor", scope))

    def others(self, lanes: Collection[str]) -> int:
        return int(self._one("list/others", self._many(lanes)))

    def next_due(self) -> int | None:
        at = self._one("list/next_due")
        return None if at is None else int(at)

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        return self._runs("list/scan_runs", after, limit)

    def scan_entries(self, *, after: tuple[int, int], until: int, limit: int) -> list[Entry]:
        return resolve_entries(self._each, self._rows(Entry, "list/scan_entries", *after, until, limit))

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]:
        return self._events("list/scan_events", after, limit)

    def orphans(self, limit: int = 100) -> list[str]:
        return [row[0] for row in self._each("list/orphans", limit)]

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        return {**dict.fromkeys(events, 0), **dict(self._each("list/first_run_counts", self._many(events)))}

    def messages_to(self, runs: Collection[int]) -> set[int]:
        return {row[0] for row in self._each("list/messages_to", self._many(runs))}

    def counts(self) -> dict[str, int]:
        return dict([*self._each("list/run_counts"), *self._each("list/task_counts")])

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _one(self, act: str, *values: Any) -> Any:
        """The first column of the first row; None without one."""
        row = next(iter(self._each(act, *values)), None)
        return None if row is None else row[0]

    def _rows(self, row: type[R], act: str, *values: Any) -> list[R]:
        return [row(*one) for one in self._each(act, *values)]

    def _runs(self, act: str, *values: Any) -> list[Run]:
        return self._full(self._rows(Run, act, *values))

    def _full(self, runs: list[Run]) -> list[Run]:
        for run in runs:
            run.input = text_of_blob(self._each, run.no, 0, run.input)
            run.result = text_of_blob(self._each, run.no, 0, run.result)
            run.error = text_of_blob(self._each, run.no, 0, run.error)
        return runs

    def _events(self, act: str, *values: Any) -> list[Event]:
        return [resolve_event(self._each, event) for event in self._rows(Event, act, *values)]

    # ── of each store ────────────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _each(self, act: str, *values: Any) -> Iterable[Any]:
        """The rows of an act."""

    @abstractmethod
    def _many(self, values: Collection[Any]) -> Any:
        """Several values as one parameter."""

    @abstractmethod
    def _listed(self, where: RunFilter, before: int | None, limit: int, floor: int) -> list[Run]:
        """Runs from number `floor` on, newest first."""


def _page(rows: list[Any], limit: int) -> Page:
    shown = rows[:limit]
    return Page(shown, shown[-1].no if len(rows) > limit else None)

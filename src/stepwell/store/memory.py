"""The memory store: the plainest possible one. It is the oracle that the others are compared with; nothing survives."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from stepwell.kernel.calls import AppTables
from stepwell.kernel.fold import kept
from stepwell.kernel.unit import CHANGED, NEW, Reading, TaskKey, Unit
from stepwell.model.entries import DELIVERABLE
from stepwell.model.rows import Blob, Change, Entry, Event, Manifest, Message, Output, Pool, Request, Run, Task
from stepwell.store.memory_app import MemoryApp, MemoryTables
from stepwell.store.port import AppMigration, Page, RunFilter

T = TypeVar("T")
_GONE: Any = object()


class Tables:
    """All rows, by key, and the undo log of the transaction that is under way."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.tasks: dict[TaskKey, Task] = {}
        self.entries: dict[int, list[Entry]] = {}
        self.events: dict[tuple[str, str], Event] = {}
        self.manifests: dict[tuple[str, str], Manifest] = {}
        self.pools: dict[tuple[str, str], Pool] = {}
        self.requests: dict[tuple[str, str], Request] = {}
        self.blobs: dict[tuple[int, int, str], Blob] = {}
        self.outputs: dict[tuple[int, int], Output] = {}
        self.messages: dict[int, Message] = {}
        self.changes: dict[int, Change] = {}
        self.meta: dict[str, int] = {}
        self.next: dict[str, int] = {"run": 1, "event": 1, "message": 1, "change": 1}
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        self.undo.append((table, key, table.get(key, _GONE)))
        table[key] = row

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        if key in table:
            self.undo.append((table, key, table.pop(key)))

    def take(self, kind: str) -> int:
        number = self.next[kind]
        self.put(self.next, kind, number + 1)
        return number

    def back(self) -> None:
        for table, key, row in reversed(self.undo):
            if row is _GONE:
                table.pop(key, None)
            else:
                table[key] = row
        self.undo.clear()

    def text(self, run_no: int, event_no: int, stored: str | None) -> str | None:
        """A payload as it was given, wherever it is kept."""
        if stored is None or not stored.startswith("@"):
            return stored
        return self.blobs[(run_no, event_no, stored[1:])].data


class MemoryStore:
    """Rows in dictionaries, one writer at a time."""

    url = "memory:"

    def __init__(self) -> None:
        self.tables = Tables()
        self.lock = threading.RLock()
        self.app = MemoryApp()

    def migrate(self) -> None:
        """There is no schema."""

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        with self.lock:
            return self.app.migrate(app, migrations)

    def session(self, lane: str) -> "MemorySession":
        return MemorySession(self)

    def reader(self) -> "MemoryReader":
        return MemoryReader(self)

    def version(self) -> int:
        return self.tables.next["change"]

    def close(self) -> None:
        self.app.close()


class MemorySession:
    """A transaction holds the store's lock from begin to commit or rollback."""

    def __init__(self, store: MemoryStore) -> None:
        self._store, self._t = store, store.tables
        self.app: AppTables = MemoryTables(store.app, "write")
        self._held = False

    def begin(self) -> None:
        self._store.lock.acquire()
        self._held = True
        self._t.undo.clear()

    def commit(self) -> None:
        self._store.app.commit()
        self._t.undo.clear()
        self.abandon()

    def abandon(self) -> None:
        if self._held:
            self._held = False
            self._store.app.rollback()
            self._store.lock.release()

    def rollback(self) -> None:
        if self._held:
            self._t.back()
        self.abandon()

    def committed(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""

    def runs(self, numbers: Collection[int]) -> list[Run]:
        return _present(self._t.runs, numbers)

    def runs_by_id(self, keys: Collection[tuple[str, str]]) -> list[Run]:
        return [run for run in self._t.runs.values() if (run.scope, run.id) in keys]

    def tasks(self, keys: Collection[TaskKey]) -> list[Task]:
        return _present(self._t.tasks, keys)

    def _where(self, test: Callable[[Task], bool]) -> list[Task]:
        return [task for task in self._t.tasks.values() if test(task)]

    def open_tasks(self, runs: Collection[int]) -> list[Task]:
        return self._where(lambda task: task.run_no in runs and task.state != "done")

    def children(self, runs: Collection[int]) -> list[tuple[int, int]]:
        open_runs = [run for run in self._t.runs.values() if not run.terminal]
        return [(run.parent_no, run.no) for run in open_runs if run.parent_no is not None and run.parent_no in runs]

    def events(self, keys: Collection[tuple[str, str]]) -> list[Event]:
        return _present(self._t.events, keys)

    def event_runs(self, events: Collection[int]) -> list[tuple[int, str]]:
        runs = sorted(self._t.runs.values(), key=lambda run: run.no)
        return [(run.event_no, run.id) for run in runs if run.event_no is not None and run.event_no in events]

    def manifests(self, scopes: Collection[str]) -> list[Manifest]:
        return [row for row in self._t.manifests.values() if row.scope in scopes]

    def meta(self, keys: Collection[str]) -> list[tuple[str, int]]:
        return [(key, self._t.meta[key]) for key in keys if key in self._t.meta]

    def pools(self, keys: Collection[tuple[str, str]]) -> list[Pool]:
        return _present(self._t.pools, keys)

    def requests(self, keys: Collection[tuple[str, str]]) -> list[Request]:
        return _present(self._t.requests, keys)

    def leased_count(self, scope: str, pool: str, pool_key: str | None) -> int:
        return sum(
            task.state == "leased"
            and (task.scope, task.pool) == (scope, pool)
            and (pool_key is None or task.pool_key == pool_key)
            for task in self._t.tasks.values()
        )

    def ready_groups(self, pools: Collection[str]) -> list[tuple[str, str, str]]:
        ready = self._where(lambda task: task.state == "ready" and (not pools or task.pool in pools))
        return sorted({(task.pool, task.requires, task.scope) for task in ready})

    def ready(self, pool: str, requires: str, scope: str, limit: int) -> list[Task]:
        found = self._where(
            lambda task: task.state == "ready" and (task.pool, task.requires, task.scope) == (pool, requires, scope)
        )
        return sorted(found, key=lambda task: (task.priority, task.order, task.run_no, task.k))[:limit]

    def any_ready(self, scope: str, pool: str) -> bool:
        return any(
            task.state == "ready" and (task.scope, task.pool) == (scope, pool) for task in self._t.tasks.values()
        )

    def expired(self, now: int, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state == "leased" and (task.lease_until or 0) < now)
        return sorted(found, key=lambda task: (task.lease_until or 0, task.run_no, task.k))[:limit]

    def overdue(self, now: int, asked_before: int, limit: int) -> list[Run]:
        found = [run for run in self._t.runs.values() if not run.terminal and self._overdue(run, now, asked_before)]
        return sorted(found, key=lambda run: run.no)[:limit]

    def _overdue(self, run: Run, now: int, asked_before: int) -> bool:
        if run.deadline is not None and run.deadline <= now:
            return True
        task = self._t.tasks[(run.no, run.turn)]
        asked = run.cancel_at is not None and run.cancel_at <= asked_before
        return asked and task.state == "leased" and (task.leased_at or 0) <= asked_before

    def due(self, now: int, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state == "due" and (task.due_at or 0) <= now)
        return sorted(found, key=lambda task: (task.due_at or 0, task.run_no, task.k))[:limit]

    def messages(self, limit: int, functions: Collection[str] = ()) -> list[Message]:
        found = (one for one in self._t.messages.values() if one.kind != "callback" or one.key in functions)
        return sorted(found, key=lambda message: message.no)[:limit]

    def blocked_keys(self, after: tuple[str, str, str], limit: int) -> list[tuple[str, str, str]]:
        keys = {
            (task.scope, task.pool, task.pool_key or "") for task in self._where(lambda task: task.state == "blocked")
        }
        return sorted(key for key in keys if key > after)[:limit]

    def blocked(self, scope: str, pool: str, pool_key: str, limit: int) -> list[Task]:
        key = (scope, pool, pool_key)
        found = self._where(lambda task: task.state == "blocked" and (task.scope, task.pool, task.pool_key) == key)
        return sorted(found, key=lambda task: (task.priority, task.order, task.run_no, task.k))[:limit]

    def prunable_runs(self, before: int, limit: int) -> list[Run]:
        found = [run for run in self._t.runs.values() if run.ended_at is not None and run.ended_at < before]
        return sorted(found, key=lambda run: (run.ended_at or 0, run.no))[:limit]

    def prunable_events(self, before: int, runs: Collection[Run], limit: int) -> list[Event]:
        going = {run.no for run in runs}
        used = {run.event_no for run in self._t.runs.values() if run.no not in going}
        of_these = {run.event_no for run in runs}
        old = [event for event in self._t.events.values() if event.created_at < before and event.no not in used]
        unmatched = [event for event in old if event.matched == 0 and event.replays == 0]
        found = sorted(unmatched, key=lambda event: (event.created_at, event.no))[:limit]
        found += [event for event in old if event.no in of_these]
        return sorted(found, key=lambda event: event.no)

    def prunable_requests(self, now: int, limit: int) -> list[Request]:
        found = [request for request in self._t.requests.values() if request.expires_at < now]
        return sorted(found, key=lambda request: (request.expires_at, request.scope, request.key))[:limit]

    def prunable_changes(self, keep: int, limit: int) -> int:
        floor = self._t.next["change"] - 1 - keep
        first = min(self._t.changes, default=0)
        return min(floor, first + limit - 1) if 0 < first <= floor else 0

    def numbers(self, kind: str, count: int) -> int:
        return self._t.next[kind]

    def flush(self, unit: Unit, now: int) -> None:
        t = self._t
        t.put(t.meta, "lane", t.meta.get("lane", 0) + 1)
        for kind, number in unit.next_no.rows.items():
            t.put(t.next, kind, number)
        _write(t, t.runs, unit.runs)
        _write(t, t.tasks, unit.tasks)
        _write(t, t.events, unit.events)
        _write(t, t.manifests, unit.manifests)
        _write(t, t.pools, unit.pools)
        _write(t, t.requests, unit.requests)
        _write(t, t.blobs, unit.blobs)
        for table, prefix in ((unit.floors, "floor:"), (unit.revisions, "revision:")):
            for key, value in table.written(NEW, CHANGED):
                t.put(t.meta, prefix + key, value)
        for entry in unit.entries:
            t.put(t.entries, entry.run_no, [*t.entries.get(entry.run_no, []), entry])
        for output in unit.outputs:
            t.put(t.outputs, (output.run_no, output.n), output)
        for number in unit.delivered:
            t.drop(t.messages, number)
        for message in unit.sent:
            number = t.take("message")
            t.put(t.messages, number, msgspec.structs.replace(message, no=number))
        for run_no in unit.pruned_runs:
            self._prune(run_no)
        for pos in [pos for pos in t.changes if pos <= unit.pruned_changes]:
            t.drop(t.changes, pos)
        pos = t.take("change")
        t.put(t.changes, pos, Change(pos, now, msgspec.json.encode(unit.touched()).decode()))

    def _prune(self, run_no: int) -> None:
        t = self._t
        t.drop(t.runs, run_no)
        t.drop(t.entries, run_no)
        for table in (t.tasks, t.outputs, t.blobs):
            for key in [key for key in table if key[0] == run_no]:
                t.drop(table, key)

    def read(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            setattr(reading.reply, reading.field, self._read(reading))

    def _read(self, reading: Reading) -> Any:
        t = self._t
        if reading.what == "blob":
            return t.blobs[(reading.run_no, 0, reading.hash)].data
        if reading.what == "event":
            return next((_event(t, row) for row in t.events.values() if row.no == reading.event_no), None)
        entries = [_entry(t, entry) for entry in t.entries.get(reading.run_no, [])]
        if reading.what == "journal":
            return kept(entry for entry in entries if entry.seq <= reading.until)
        return [entry for entry in entries if reading.after < entry.seq < reading.until and entry.kind in DELIVERABLE]


def _write(t: Tables, table: dict[Any, Any], dirty: Any) -> None:
    for key, row in dirty.written(NEW, CHANGED):
        t.put(table, key, row)
    for key in dirty.gone():
        if table is t.events and key in table:
            for blob in [blob for blob in t.blobs if blob[1] == table[key].no]:
                t.drop(t.blobs, blob)
        t.drop(table, key)


def _present(table: dict[Any, T], keys: Iterable[Any]) -> list[T]:
    return [table[key] for key in keys if key in table]


def _entry(t: Tables, entry: Entry) -> Entry:
    if not entry.data.startswith("@"):
        return entry
    return msgspec.structs.replace(entry, data=t.text(entry.run_no, 0, entry.data))


def _event(t: Tables, event: Event) -> Event:
    return msgspec.structs.replace(event, payload=t.text(0, event.no, event.payload))


def _run(t: Tables, run: Run) -> Run:
    if all(value is None or not value.startswith("@") for value in (run.input, run.result, run.error)):
        return run
    resolved = {name: t.text(run.no, 0, getattr(run, name)) for name in ("input", "result", "error")}
    return msgspec.structs.replace(run, **resolved)


class MemoryReader:
    """Reads committed rows, since the lock is free only between transactions."""

    def __init__(self, store: MemoryStore) -> None:
        self._lock, self._t = store.lock, store.tables
        self.app: AppTables = MemoryTables(store.app, "read")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._lock:
            yield

    def run(self, scope: str, run_id: str) -> Run | None:
        with self._lock:
            return next(
                (_run(self._t, run) for run in self._t.runs.values() if (run.scope, run.id) == (scope, run_id)), None
            )

    def run_by_no(self, number: int) -> Run | None:
        with self._lock:
            run = self._t.runs.get(number)
            return None if run is None else _run(self._t, run)

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page:
        with self._lock:
            rows = [
                _run(self._t, run)
                for run in sorted(self._t.runs.values(), key=lambda run: -run.no)
                if (before is None or run.no < before) and _shown(run, where)
            ]
        return page(rows, limit)

    def event(self, scope: str, event_id: str) -> Event | None:
        with self._lock:
            row = self._t.events.get((scope, event_id))
            return None if row is None else _event(self._t, row)

    def event_by_no(self, number: int) -> Event | None:
        with self._lock:
            return next((_event(self._t, row) for row in self._t.events.values() if row.no == number), None)

    def list_events(self, scope: str, *, of_type: str | None = None, limit: int, before: int | None = None) -> Page:
        with self._lock:
            rows = [
                _event(self._t, event)
                for event in sorted(self._t.events.values(), key=lambda event: -event.no)
                if event.scope == scope and of_type in (None, event.type) and (before is None or event.no < before)
            ]
        return page(rows, limit)

    def entries(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Entry]:
        with self._lock:
            found = [_entry(self._t, entry) for entry in self._t.entries.get(run_no, []) if entry.seq > after]
        return found[:limit]

    def tasks_of(self, run_no: int) -> list[Task]:
        with self._lock:
            return sorted((task for task in self._t.tasks.values() if task.run_no == run_no), key=lambda task: task.k)

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        with self._lock:
            found = [row for (no, n), row in sorted(self._t.outputs.items()) if no == run_no and n > after]
        return found[:limit]

    def pools(self, scope: str) -> list[Pool]:
        with self._lock:
            return sorted((pool for pool in self._t.pools.values() if pool.scope == scope), key=lambda pool: pool.name)

    def manifests(self, scope: str) -> list[Manifest]:
        with self._lock:
            return sorted((row for row in self._t.manifests.values() if row.scope == scope), key=lambda row: row.name)

    def meta(self, key: str) -> int | None:
        return self._t.meta.get(key)

    def changes(self, *, after: int, limit: int = 1_000) -> list[Change]:
        with self._lock:
            return [row for pos, row in sorted(self._t.changes.items()) if pos > after][:limit]

    def head(self) -> int:
        with self._lock:
            return max(self._t.changes, default=0)

    def next_due(self) -> int | None:
        with self._lock:
            times = [task.due_at for task in self._t.tasks.values() if task.state == "due"]
        return min((time for time in times if time is not None), default=None)

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        with self._lock:
            found = [_run(self._t, run) for no, run in sorted(self._t.runs.items()) if no > after]
        return found[:limit]

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]:
        with self._lock:
            found = sorted((row for row in self._t.events.values() if row.no > after), key=lambda row: row.no)
            return [_event(self._t, row) for row in found[:limit]]

    def orphans(self, limit: int = 100) -> list[str]:
        with self._lock:
            t, found = self._t, []
            found += [f"entries of run {no}" for no in t.entries if no not in t.runs]
            found += [f"task {no}.{k}" for no, k in t.tasks if no not in t.runs]
            found += [f"output {no}.{n}" for no, n in t.outputs if no not in t.runs]
            found += [f"blob {digest} of run {no}" for no, _, digest in t.blobs if no and no not in t.runs]
            events = {event.no for event in t.events.values()}
            found += [f"blob {digest} of event {no}" for _, no, digest in t.blobs if no and no not in events]
        return found[:limit]

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        with self._lock:
            counts = dict.fromkeys(events, 0)
            for run in self._t.runs.values():
                if run.event_no in counts and run.replay == 0:
                    counts[run.event_no] += 1
        return counts

    def messages_to(self, runs: Collection[int]) -> set[int]:
        with self._lock:
            return {message.to_no for message in self._t.messages.values() if message.to_no in runs}

    def counts(self) -> dict[str, int]:
        with self._lock:
            counts: dict[str, int] = {}
            for run in self._t.runs.values():
                if not run.terminal:
                    counts[f"run.{run.status}"] = counts.get(f"run.{run.status}", 0) + 1
            for task in self._t.tasks.values():
                if task.state != "done":
                    counts[f"task.{task.state}"] = counts.get(f"task.{task.state}", 0) + 1
        return counts

    def close(self) -> None:
        """Nothing to close."""


def page(rows: list[Any], limit: int) -> Page:
    """The first `limit` of rows that were read one further, and where the rest begins."""
    shown = rows[:limit]
    return Page(shown, shown[-1].no if len(rows) > limit else None)


def _shown(run: Run, where: RunFilter) -> bool:
    return (
        run.scope == where.scope
        and where.status in (None, run.status)
        and where.result_status in (None, run.result_status)
        and where.name in (None, run.name)
        and where.event_no in (None, run.event_no)
        and where.hold in (None, run.hold)
        and (not where.attention or run.needs_attention)
    )

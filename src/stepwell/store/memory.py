"""The memory store: the plainest possible one. It is the oracle that the others are compared with; nothing survives."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from stepwell.kernel.calls import AppTables
from stepwell.kernel.fold import kept
from stepwell.kernel.internal import heard_cancel
from stepwell.kernel.unit import CHANGED, NEW, PoolKey, Reading, TaskKey, Unit
from stepwell.model.entries import DELIVERABLE
from stepwell.model.rows import Blob, Change, Entry, Event, Manifest, Message, Pool, Request, Run, Task
from stepwell.store.memory_app import MemoryApp, MemoryTables
from stepwell.store.memory_reader import MemoryReader
from stepwell.store.port import NOTHING, Ahead, AppMigration, Group, Key, Share
from stepwell.store.tables import Tables, full_entry, full_event

T = TypeVar("T")


class MemoryStore:
    """Rows in dictionaries, one writer at a time."""

    url = "memory:"
    many_lanes = False
    dialect = "sqlite"

    def __init__(self) -> None:
        self.tables = Tables()
        self.lock = threading.RLock()
        self.app = MemoryApp()

    def exists(self) -> bool:
        return True

    def migrate(self) -> None:
        """There is no schema."""

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        with self.lock:
            return self.app.migrate(app, migrations)

    def session(self, lane: str) -> "MemorySession":
        return MemorySession(self, lane)

    def reader(self) -> MemoryReader:
        return MemoryReader(self.lock, self.tables, self.app)

    def stamper(self, holder: str) -> None:
        """A change has its position when it is committed."""

    def listen(self, told: Callable[[str], None], say: Callable[[], Sequence[str]]) -> None:
        """There is one process."""

    def version(self) -> int:
        return self.tables.next["commit"]

    def cut(self) -> None:
        """There is no server to wait for."""

    def close(self) -> None:
        self.app.close()


class MemorySession:
    """A transaction holds the store's lock from begin to commit or rollback."""

    def __init__(self, store: MemoryStore, lane: str) -> None:
        self._store, self._t, self._lane = store, store.tables, f"lane:{lane}"
        self.app: AppTables = MemoryTables(store.app, "write")
        self._held = False
        self.heals, self.now = False, None

    def begin(self, ahead: Ahead = NOTHING) -> None:
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

    def runs(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> list[Run]:
        found = {run.no: run for run in self.runs_by_no(numbers)}
        found.update((run.no, run) for run in self.runs_by_id(ids))
        return list(found.values())

    def take(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> tuple[list[Run], list[Run]]:
        return self.runs(numbers, ids), []

    def runs_by_no(self, numbers: Collection[int]) -> list[Run]:
        return _present(self._t.runs, numbers)

    def runs_by_id(self, ids: Collection[tuple[str, str]]) -> list[Run]:
        return [run for run in self._t.runs.values() if (run.scope, run.id) in ids]

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

    def leased_counts(self, slots: Sequence[PoolKey]) -> list[int]:
        leased = self._where(lambda task: task.state == "leased")
        return [
            sum((one.scope, one.pool) == (scope, pool) and key in (None, one.pool_key) for one in leased)
            for scope, pool, key in slots
        ]

    def ready_groups(self, pools: Collection[str]) -> list[Group]:
        ready = self._where(lambda task: task.state == "ready" and (not pools or task.pool in pools))
        return sorted({(task.pool, task.requires, task.scope) for task in ready})

    def ready(self, wanted: Mapping[Group, int]) -> list[Task]:
        return [task for group, limit in wanted.items() for task in self._ready(group)[:limit]]

    def _ready(self, group: Group) -> list[Task]:
        found = self._where(lambda task: task.state == "ready" and (task.pool, task.requires, task.scope) == group)
        return sorted(found, key=lambda task: (task.priority, task.order, task.run_no, task.k))

    def ready_keys(self, groups: Collection[Group]) -> dict[Group, dict[str, int]]:
        return {group: self._keys_of(group) for group in groups}

    def _keys_of(self, group: Group) -> dict[str, int]:
        pool, _, scope = group
        keys = sorted({task.pool_key for task in self._ready(group) if task.pool_key is not None})
        return dict(zip(keys, self.leased_counts([(scope, pool, key) for key in keys]), strict=True))

    def ready_shares(self, shares: Mapping[Group, Share]) -> list[Task]:
        return [task for group, share in shares.items() for task in self._share(self._ready(group), share)]

    def _share(self, ready: list[Task], share: Share) -> list[Task]:
        left, found = dict(share.free), list[Task]()
        for task in ready:
            if task.pool_key is not None and left.get(task.pool_key, 0) > 0:
                left[task.pool_key] -= 1
                found.append(task)
        first = ready[: share.first]
        return first + [task for task in found[: share.most] if task not in first]

    def any_ready(self, scope: str, pool: str) -> bool:
        return any(
            task.state == "ready" and (task.scope, task.pool) == (scope, pool) for task in self._t.tasks.values()
        )

    def entries_of(self, run_no: int, kinds: Collection[str], until: int) -> list[Entry]:
        entries = (entry for entry in self._t.entries.get(run_no, []) if entry.kind in kinds)
        return [full_entry(self._t, one) for one in entries if one.seq <= until or one.kind == "run.restarted"]

    def blobs(self, keys: Collection[tuple[int, str]]) -> list[Blob]:
        return _present(self._t.blobs, [(run_no, 0, digest) for run_no, digest in keys])

    def late(self, now: int, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state != "done" and task.deadline is not None and task.deadline <= now)
        return sorted(found, key=lambda task: (task.deadline or 0, task.run_no, task.k))[:limit]

    def expired(self, now: int, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state == "leased" and (task.lease_until or 0) < now)
        return sorted(found, key=lambda task: (task.lease_until or 0, task.run_no, task.k))[:limit]

    def leased_by(self, worker: str, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state == "leased" and task.worker == worker and task.kind != "step")
        return sorted(found, key=lambda task: (task.lease_until or 0, task.run_no, task.k))[:limit]

    def overdue(self, now: int, asked_before: int, limit: int) -> list[Run]:
        found = [run for run in self._t.runs.values() if not run.terminal and self._overdue(run, now, asked_before)]
        return sorted(found, key=lambda run: run.no)[:limit]

    def _overdue(self, run: Run, now: int, asked_before: int) -> bool:
        if run.deadline is not None and run.deadline <= now:
            return True
        task = self._t.tasks[(run.no, run.turn)]
        asked = run.cancel_at is not None and run.cancel_at <= asked_before
        heard = heard_cancel(run, task) if asked else None
        return heard is not None and heard <= asked_before

    def due(self, now: int, limit: int) -> list[Task]:
        found = self._where(lambda task: task.state == "due" and (task.due_at or 0) <= now)
        return sorted(found, key=lambda task: (task.due_at or 0, task.run_no, task.k))[:limit]

    def messages(self, limit: int, functions: Collection[str] = ()) -> tuple[list[Message], bool]:
        found = (one for one in self._t.messages.values() if one.kind != "callback" or one.key in functions)
        return sorted(found, key=lambda message: message.no)[:limit], False

    def blocked_keys(self, after: Key, limit: int) -> list[Key]:
        keys = {
            (task.scope, task.pool, task.pool_key or "") for task in self._where(lambda task: task.state == "blocked")
        }
        return sorted(key for key in keys if key > after)[:limit]

    def blocked(self, wanted: Mapping[Key, int]) -> list[Task]:
        found = self._where(lambda task: task.state == "blocked")
        found.sort(key=lambda task: (task.priority, task.order, task.run_no, task.k))
        of = {key: [task for task in found if (task.scope, task.pool, task.pool_key) == key] for key in wanted}
        return [task for key, limit in wanted.items() for task in of[key][:limit]]

    def blocked_besides(self, keys: Collection[Key], tasks: Collection[Task]) -> list[Key]:
        these = {(task.run_no, task.k) for task in tasks}
        others = self._where(lambda task: task.state == "blocked" and (task.run_no, task.k) not in these)
        have = {(task.scope, task.pool, task.pool_key) for task in others}
        return [key for key in keys if key in have]

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
        t.put(t.meta, self._lane, t.meta.get(self._lane, 0) + 1)
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
        self._prune_changes(unit.pruned_changes)
        self._note(unit, now)

    def _prune_changes(self, until: int) -> None:
        t = self._t
        for number in [number for number in t.changes if number <= until]:
            gone = t.changes[number]
            t.put(t.meta, f"changes:{gone.scope}", gone.pos)
            t.drop(t.changes, number)

    def _note(self, unit: Unit, now: int) -> None:
        t = self._t
        t.take("commit")
        for scope, touched in unit.touched().items():
            pos = t.heads.get(scope, 0) + 1
            t.put(t.heads, scope, pos)
            t.put(t.changes, t.take("change"), Change(scope, pos, now, msgspec.json.encode(touched).decode()))

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
            return next((full_event(t, row) for row in t.events.values() if row.no == reading.event_no), None)
        entries = [full_entry(t, entry) for entry in t.entries.get(reading.run_no, [])]
        if reading.what == "journal":
            return kept(entry for entry in entries if entry.seq <= reading.until)
        if reading.what == "at":
            return entries[reading.until - 1].at
        if reading.what == "own":
            return [entry for entry in entries if reading.after < entry.seq < reading.until and entry.n]
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

"""A lane's connection to a SQLite file: begin, load, flush, commit."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol

import msgspec
from msgspec.structs import astuple

from stepwell.kernel.calls import AppTables
from stepwell.kernel.fold import kept
from stepwell.kernel.tasks import place
from stepwell.kernel.unit import CHANGED, NEW, PoolKey, Reading, TaskKey, Unit
from stepwell.model.entries import DELIVERABLE
from stepwell.model.rows import Blob, Entry, Event, Manifest, Message, Pool, Request, Run, Task
from stepwell.store.columns import columns
from stepwell.store.port import NOTHING, Ahead, Group, Key, Share
from stepwell.store.reading import resolve_entries, resolve_event, text_of_blob
from stepwell.store.sqlite.guarded import Guarded
from stepwell.store.sqlite.reader import pool_of
from stepwell.store.sqlite.sql import bulk, position, sql
from stepwell.store.sqlite.told import TOLD, TOLD_OF_COMMIT

log = logging.getLogger("stepwell.sqlite")
#: Rows that a session keeps between batches; past it the cache starts again.
CACHE_ROWS = 50_000
#: A row with more payload than this is not kept between batches, nor is one that has ended.
CACHED_CHARS = 4_096
#: Scopes whose last position is kept between batches.
MOST_HEADS = 10_000
#: How many (pool, requires, scope) a claim looks at.
GROUPS = 100
#: How many keys of a pool a claim looks at.
KEYS = 200
LANE_KEPT_MS = 7 * 86_400_000
#: Rows that are written in one statement, at the most, and in what steps beyond the first few: each number is a
#: statement of its own, which is kept. A step of SQLite lets other threads run, and may wait for them long.
MOST_ROWS, ROW_STEP = 128, 8

_COLUMNS = columns("run")
_SELDOM, _STATUS, _OFTEN = (_COLUMNS.index(name) for name in ("generation", "status", "head_seq"))
_seldom, _status = attrgetter(*_COLUMNS[_SELDOM:_STATUS]), attrgetter(*_COLUMNS[_STATUS:_OFTEN])
_from_seldom, _from_status, _from_often = (attrgetter("no", *_COLUMNS[at:]) for at in (_SELDOM, _STATUS, _OFTEN))
_TASK_TAIL, _EVENT_TAIL = position("task", "kind"), position("event", "matched")
_json = msgspec.json.Encoder().encode


class Lock(Protocol):
    """Lets writers take turns."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def close(self) -> None: ...


class SqliteSession:
    """Runs and tasks stay cached between batches, as long as nobody else has committed."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], lock: Lock, lane: str) -> None:
        self._connect, self._lock, self._lane = connect, lock, lane
        self._db = connect()
        self._app = Guarded(self._db, "write")
        self._held = False
        self.now = None
        self.heals = False  # a disk that failed is looked at by somebody, who then starts the process again
        self._runs: dict[int, Run] = {}
        self._tasks: dict[TaskKey, Task] = {}
        self._passing: set[int] = set()  # runs that this batch has loaded and that do not stay
        self._next: dict[str, int] = {}
        self._heads: dict[str, int] = {}  # of the change log, by scope
        self._looked_to: dict[str, tuple[str, str, str]] = {}
        self._key_looked_to: dict[Group, str] = {}
        self._version = -1
        self._unit: Unit | None = None
        self._flushed = 0  # the lane's number that the batch under way has written

    # ── the transaction ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, ahead: Ahead = NOTHING) -> None:
        self._lock.acquire()
        self._held = True
        try:
            with TOLD:
                self._db.execute("begin immediate")
                version = self._db.execute("pragma data_version").fetchone()[0]
        except BaseException:
            self._unlock()
            raise
        if version != self._version or len(self._runs) > CACHE_ROWS or len(self._tasks) > CACHE_ROWS:
            self._forget()
            self._version = version

    def commit(self) -> None:
        unit, self._unit = self._unit, None
        try:
            with TOLD_OF_COMMIT:
                self._db.execute("commit")
        except BaseException:
            self._forget()
            raise
        finally:
            self._unlock()
        try:
            self._drop_passing()
            if unit is not None:
                self._remember(unit)
        except Exception:  # the rows are durable, so nobody may be told otherwise
            log.exception("the row cache starts again")
            self._forget()

    def rollback(self) -> None:
        self._unit = None
        self._forget()
        try:
            if self._db.in_transaction:
                self._db.execute("rollback")
        finally:
            self._unlock()

    def abandon(self) -> None:
        """Ends a transaction that wrote nothing; what was loaded stays good."""
        self._unit = None
        self._drop_passing()
        self._db.execute("rollback")
        self._unlock()

    def committed(self) -> bool:
        self._db.close()
        self._forget()
        self._db = self._connect()
        self._app = Guarded(self._db, "write")
        row = self._db.execute(sql("list/lane"), (self._lane,)).fetchone()
        return row is not None and row[0] >= self._flushed

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    @property
    def app(self) -> AppTables:
        return self._app

    def _unlock(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()

    def _forget(self) -> None:
        self._runs.clear()
        self._tasks.clear()
        self._next.clear()
        self._heads.clear()
        self._passing.clear()

    def _drop_passing(self) -> None:
        for number in self._passing:
            self._runs.pop(number, None)
        self._passing.clear()

    def _remember(self, unit: Unit) -> None:
        """Rows go back into the cache only after the commit."""
        for number, run in unit.runs.rows.items():
            if _stays(run):
                self._runs[number] = run
            else:
                self._runs.pop(number, None)
        for key, task in unit.tasks.rows.items():
            if task.state != "done" and len(task.args or "") + len(task.details or "") <= CACHED_CHARS:
                self._tasks[key] = task
            else:
                self._tasks.pop(key, None)
        self._next.update(unit.next_no.rows)
        if unit.pruned_runs:
            self._forget()

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _all(self, act: str, *values: Any) -> list[Any]:
        with TOLD:
            return self._db.execute(sql(act), values).fetchall()

    def _keyed(self, act: str, keys: Collection[Any]) -> list[Any]:
        return self._all(act, _json(list(keys)).decode())

    def runs(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> list[Run]:
        named = self.runs_by_id(ids) if ids else []
        have = {run.no for run in named}
        return named + self.runs_by_no([number for number in numbers if number not in have])

    def take(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> tuple[list[Run], list[Run]]:
        return self.runs(numbers, ids), []

    def runs_by_no(self, numbers: Collection[int]) -> list[Run]:
        cache = self._runs
        found = [cache[number] for number in numbers if number in cache]
        missing = [number for number in numbers if number not in cache]
        if missing:
            loaded = [Run(*row) for row in self._keyed("load/runs", missing)]
            cache.update((run.no, run) for run in loaded)
            self._passing.update(run.no for run in loaded if not _stays(run))
            found += loaded
        return found

    def runs_by_id(self, ids: Collection[tuple[str, str]]) -> list[Run]:
        found = [Run(*row) for row in self._keyed("load/runs_by_id", ids)]
        self._passing.update(run.no for run in found if not _stays(run))
        return [self._runs.setdefault(run.no, run) for run in found]

    def tasks(self, keys: Collection[TaskKey]) -> list[Task]:
        cache = self._tasks
        found = [cache[key] for key in keys if key in cache]
        missing = [run_no << 20 | k for run_no, k in keys if (run_no, k) not in cache]
        if missing:
            found += [Task(*row) for row in self._keyed("load/tasks", missing)]
        return found

    def open_tasks(self, runs: Collection[int]) -> list[Task]:
        return [Task(*row) for row in self._keyed("load/open_tasks", runs)]

    def children(self, runs: Collection[int]) -> list[tuple[int, int]]:
        return self._keyed("load/children", runs)

    def events(self, keys: Collection[tuple[str, str]]) -> list[Event]:
        return [Event(*row) for row in self._keyed("load/events", keys)]

    def event_runs(self, events: Collection[int]) -> list[tuple[int, str]]:
        return self._keyed("load/event_runs", events)

    def manifests(self, scopes: Collection[str]) -> list[Manifest]:
        return [Manifest(*row) for row in self._keyed("load/manifests", scopes)]

    def meta(self, keys: Collection[str]) -> list[tuple[str, int]]:
        return self._keyed("load/meta", keys)

    def pools(self, keys: Collection[tuple[str, str]]) -> list[Pool]:
        return [pool_of(row) for row in self._keyed("load/pools", keys)]

    def requests(self, keys: Collection[tuple[str, str]]) -> list[Request]:
        return [Request(*row) for row in self._keyed("load/requests", keys)]

    # ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def leased_counts(self, slots: Sequence[PoolKey]) -> list[int]:
        return [self._leased_count(*slot) for slot in slots]

    def _leased_count(self, scope: str, pool: str, pool_key: str | None) -> int:
        if pool_key is None:
            return int(self._all("find/leased_in_pool", scope, pool)[0][0])
        return int(self._all("find/leased_of_key", scope, pool, pool_key)[0][0])

    def ready_groups(self, pools: Collection[str]) -> list[Group]:
        return [group for pool in sorted(pools) or ("",) for group in self._groups(pool)]

    def _groups(self, pool: str) -> list[Group]:
        """Groups of a pool, or of all pools for "": where there are very many, from where the last look ended."""
        start = last = self._looked_to.get(pool, (pool, "", ""))
        groups, wrapped = list[Group](), start == (pool, "", "")
        while len(groups) < GROUPS:
            rows = self._all("find/next_group", *last)
            if rows and pool in ("", rows[0][0]) and not (wrapped and start < rows[0] and start != (pool, "", "")):
                last = rows[0]
                groups.append(last)
            elif wrapped:
                self._looked_to.pop(pool, None)
                return sorted(set(groups))
            else:
                wrapped, last = True, (pool, "", "")
        self._looked_to[pool] = last
        return sorted(set(groups))

    def ready(self, wanted: Mapping[Group, int]) -> list[Task]:
        return [Task(*row) for group, limit in wanted.items() for row in self._all("find/ready", *group, limit)]

    def ready_keys(self, groups: Collection[Group]) -> dict[Group, dict[str, int]]:
        return {group: self._keys_of(group) for group in groups}

    def _keys_of(self, group: Group) -> dict[str, int]:
        start = last = self._key_looked_to.pop(group, "")
        keys: dict[str, int] = {}
        while len(keys) < KEYS:
            rows = self._all("find/next_ready_key", *group, last)
            if not rows and last and start:
                last = start = ""  # from the beginning, once
                continue
            if not rows or rows[0][0] in keys:
                return keys
            last = rows[0][0]
            keys[last] = self._leased_count(group[2], group[0], last)
        self._key_looked_to[group] = last
        return keys

    def ready_shares(self, shares: Mapping[Group, Share]) -> list[Task]:
        found: dict[TaskKey, Task] = {}
        for group, share in shares.items():
            rows = [row for key, n in share.free.items() for row in self._all("find/ready_of_key", *group, key, n)]
            behind = sorted((Task(*row) for row in rows), key=place)[: share.most]
            found.update(((task.run_no, task.k), task) for task in self.ready({group: share.first}) + behind)
        return list(found.values())

    def any_ready(self, scope: str, pool: str) -> bool:
        groups = self._groups(pool)
        return len(groups) >= GROUPS or any(group[2] == scope for group in groups)

    def entries_of(self, run_no: int, kinds: Collection[str], until: int) -> list[Entry]:
        rows = self._all("find/entries_of", run_no, _json(list(kinds)).decode(), until)
        return resolve_entries(self._all, [Entry(*row) for row in rows])

    def blobs(self, keys: Collection[tuple[int, str]]) -> list[Blob]:
        return [Blob(*row) for row in self._keyed("load/blobs", keys)]

    def late(self, now: int, limit: int) -> list[Task]:
        return [Task(*row) for row in self._all("find/late", now, limit)]

    def expired(self, now: int, limit: int) -> list[Task]:
        return [Task(*row) for row in self._all("find/expired", now, limit)]

    def leased_by(self, worker: str, limit: int) -> list[Task]:
        return [Task(*row) for row in self._all("find/leased_by", worker, limit)]

    def overdue(self, now: int, asked_before: int, limit: int) -> list[Run]:
        return [Run(*row) for row in self._all("find/overdue", now, asked_before, limit)]

    def due(self, now: int, limit: int) -> list[Task]:
        return [Task(*row) for row in self._all("find/due", now, limit)]

    def messages(self, limit: int, functions: Collection[str] = ()) -> tuple[list[Message], bool]:
        rows = self._all("find/messages", limit)
        if functions:
            rows += self._all("find/callbacks", _json(sorted(functions)).decode(), limit)
        return sorted((Message(*row) for row in rows), key=lambda message: message.no)[:limit], False

    def blocked_keys(self, after: Key, limit: int) -> list[Key]:
        keys: list[Key] = []
        while len(keys) < limit and (rows := self._all("find/next_blocked", *(keys[-1] if keys else after))):
            keys.append(rows[0])
        return keys

    def blocked(self, wanted: Mapping[Key, int]) -> list[Task]:
        return [Task(*row) for key, limit in wanted.items() for row in self._all("find/blocked", *key, limit)]

    def blocked_besides(self, keys: Collection[Key], tasks: Collection[Task]) -> list[Key]:
        counts = Counter((task.scope, task.pool, task.pool_key) for task in tasks)
        return [key for key in keys if len(self._all("find/blocked", *key, counts[key] + 1)) > counts[key]]

    def prunable_runs(self, before: int, limit: int) -> list[Run]:
        return [Run(*row) for row in self._all("find/prunable_runs", before, limit)]

    def prunable_events(self, before: int, runs: Collection[Run], limit: int) -> list[Event]:
        found = [Event(*row) for row in self._all("find/unmatched_events", before, limit)]
        events = [run.event_no for run in runs if run.event_no is not None]
        if events:
            going = _json([run.no for run in runs]).decode()
            found += [Event(*row) for row in self._all("find/prunable_events", before, _json(events).decode(), going)]
        return sorted(found, key=lambda event: event.no)

    def prunable_requests(self, now: int, limit: int) -> list[Request]:
        return [Request(*row) for row in self._all("find/prunable_requests", now, limit)]

    def prunable_changes(self, keep: int, limit: int) -> int:
        first, last = self._all("find/change_span")[0]
        if first is None or first > last - keep:
            return 0
        return int(min(last - keep, first + limit - 1))

    def numbers(self, kind: str, count: int) -> int:
        if kind not in self._next:
            self._next = {"run": 1, "event": 1}
            self._next.update({name: seq + 1 for name, seq in self._all("find/last_numbers")})
        return self._next[kind]

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def flush(self, unit: Unit, now: int) -> None:
        with TOLD:
            self._flush_runs(unit)
            self._flush_tasks(unit)
            self._flush_events(unit)
            self._many("flush/insert_entry", unit.entries)
            self._many("flush/insert_output", unit.outputs)
            self._many("flush/insert_message", unit.sent)
            self._keys("flush/delete_message", [(number,) for number in unit.delivered])
            self._many("flush/insert_blob", [row for _, row in unit.blobs.written(NEW)])
            self._small(unit)
            self._prune(unit, now)
            for scope, touched in unit.touched().items():
                row = (scope, self._next_position(scope), now, _json(touched).decode())
                self._db.execute(sql("flush/insert_change"), row)
            self._flushed = self._db.execute(sql("flush/raise_lane"), (self._lane, now)).fetchone()[0]
        self._unit = unit

    def _next_position(self, scope: str) -> int:
        """Of the scope's change. If this commit comes to nothing, the cache starts again."""
        if len(self._heads) > MOST_HEADS:
            self._heads.clear()
        head = self._heads.get(scope)
        if head is None:
            head = self._db.execute(sql("list/head"), (scope,)).fetchone()[0]
        self._heads[scope] = head + 1
        return int(head + 1)

    def _many(self, act: str, rows: Sequence[Any]) -> None:
        if rows:
            self._write(act, list(map(astuple, rows)))

    def _write(self, act: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Inserts or updates rows, as few statements as can be."""
        done = 0
        while (left := len(rows) - done) > 1:
            size = left if left < ROW_STEP else min(left - left % ROW_STEP, MOST_ROWS)
            self._db.execute(bulk(act, size), tuple(chain.from_iterable(rows[done : done + size])))
            done += size
        if left:
            self._db.execute(sql(act), rows[done])

    def _keys(self, act: str, keys: Sequence[tuple[Any, ...]]) -> None:
        if keys:
            self._db.executemany(sql(act), keys)

    def _flush_runs(self, unit: Unit) -> None:
        """Writes only the tail of the row that changed: an index is touched when one of its columns is written."""
        new, often, status, seldom = [], [], [], []
        for number, state in unit.runs.dirty.items():
            run, cached = unit.runs.rows[number], self._runs.get(number)
            if state == NEW:
                new.append(astuple(run))
            elif cached is None or _seldom(cached) != _seldom(run):
                seldom.append(_from_seldom(run))
            elif _status(cached) != _status(run):
                status.append(_from_status(run))
            else:
                often.append(_from_often(run))
        self._write("flush/insert_run", new)
        self._write("flush/advance_run", often)
        self._write("flush/update_run_status", status)
        self._write("flush/update_run", seldom)

    def _flush_tasks(self, unit: Unit) -> None:
        self._many("flush/insert_task", [row for _, row in unit.tasks.written(NEW)])
        changed = unit.tasks.written(CHANGED)
        self._write("flush/update_task", [(no << 20 | k, *astuple(row)[_TASK_TAIL:]) for (no, k), row in changed])

    def _flush_events(self, unit: Unit) -> None:
        if not unit.events.dirty:
            return
        self._many("flush/insert_event", [row for _, row in unit.events.written(NEW)])
        changed = [(row.no, *astuple(row)[_EVENT_TAIL:]) for _, row in unit.events.written(CHANGED)]
        self._write("flush/update_event", changed)
        gone = unit.events.gone()
        self._keys("flush/delete_event_blobs", gone)
        self._keys("flush/delete_event", gone)

    def _small(self, unit: Unit) -> None:
        for table, name in ((unit.manifests, "manifest"), (unit.pools, "pool"), (unit.requests, "request")):
            if table.dirty:
                self._many(f"flush/put_{name}", [row for _, row in table.written(NEW, CHANGED)])
                self._keys(f"flush/delete_{name}", table.gone())
        for floors, prefix in ((unit.floors, "floor:"), (unit.revisions, "revision:")):
            self._write("flush/put_meta", [(prefix + key, value) for key, value in floors.written(NEW, CHANGED)])

    def _prune(self, unit: Unit, now: int) -> None:
        runs = [(number,) for number in unit.pruned_runs]
        for what in ("_entries", "_tasks", "_outputs", "_blobs", ""):
            self._keys(f"flush/delete_run{what}", runs)
        if unit.pruned_changes:
            self._db.execute(sql("flush/raise_floors"), (unit.pruned_changes,))
            self._db.execute(sql("flush/delete_changes"), (unit.pruned_changes,))
            self._db.execute(sql("flush/delete_lanes"), (now - LANE_KEPT_MS,))

    # ── reading for replies ──────────────────────────────────────────────────────────────────────────────────────

    def read(self, readings: Sequence[Reading]) -> None:
        with TOLD:
            for reading in readings:
                setattr(reading.reply, reading.field, self._read(reading))

    def _read(self, reading: Reading) -> Any:
        if reading.what == "blob":
            return text_of_blob(self._all, reading.run_no, 0, "@" + reading.hash)
        if reading.what == "event":
            row = self._db.execute(sql("list/event_by_no"), (reading.event_no,)).fetchone()
            return None if row is None else resolve_event(self._all, Event(*row))
        if reading.what == "at":
            return self._db.execute(sql("find/time_of"), (reading.run_no, reading.until)).fetchone()[0]
        bounds = (reading.run_no, reading.after, reading.until + (reading.what == "journal"))
        rows = self._db.execute(sql("list/entries_until"), bounds).fetchall()
        entries = resolve_entries(self._all, [Entry(*row) for row in rows])
        if reading.what == "journal":
            return kept(entries)
        return [one for one in entries if (one.n if reading.what == "own" else one.kind in DELIVERABLE)]


def _stays(run: Run) -> bool:
    """Whether a run is worth keeping between batches."""
    return run.ended_at is None and len(run.input or "") + len(run.tags or "") <= CACHED_CHARS

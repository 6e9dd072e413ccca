"""A lane's connection to a PostgreSQL server: begin, load, flush, commit (source: KERNEL, multi-run rule).

A lane locks its own row, then the runs that its batch names, in order, in one statement; those it waits for. Then it
finds work for claims and roles, and takes what nobody has (skip locked). A task is written by whoever has locked its
run, so a run's lock is the only one there is; what was found without it is read again with it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq

from stepwell.kernel.calls import AppTables
from stepwell.kernel.fold import kept
from stepwell.kernel.unit import PoolKey, Reading, TaskKey, Unit
from stepwell.model.entries import DELIVERABLE
from stepwell.model.rows import Blob, Entry, Event, Manifest, Message, Pool, Request, Run, Task
from stepwell.store.port import NOTHING, Ahead, Group, Key, Retry, Share
from stepwell.store.postgres.app_tables import PostgresTables
from stepwell.store.postgres.brought import GROUPS, Brought, asked, groups_of, key_columns, named_runs, numbers_of
from stepwell.store.postgres.connection import Connect
from stepwell.store.postgres.exchange import Exchange, Statement
from stepwell.store.postgres.flush import Act, acts
from stepwell.store.postgres.numbers import Numbers
from stepwell.store.postgres.sql import sql, together
from stepwell.store.postgres.told import TOLD, TOLD_OF_COMMIT
from stepwell.store.reading import resolve_entries, resolve_event, text_of_blob

BEGIN = "begin isolation level read committed"
#: How many keys of a pool a claim looks at.
KEYS = 200
#: Before every task of a group: its priority, order and number.
FIRST = (-(1 << 63), -(1 << 63), 0)
#: How often a batch looks for work where others were quicker, or have what comes first.
LOOKS = 4


class PostgresSession:
    """Keeps no rows between batches: another lane may have changed them.

    `idle_ms`: how long a transaction may stand still, where the connection itself does not say so.
    """

    def __init__(self, connect: Connect, lane: str, *, idle_ms: int | None = None) -> None:
        self._connect, self._lane = connect, lane
        self._bound = [] if idle_ms is None else [(f"set local idle_in_transaction_session_timeout = {idle_ms}", ())]
        self._link = Exchange(connect(), keeps_plans=True)
        self._app = PostgresTables(lambda: self._link, "write")
        self.heals = True
        self.now: int = self._link.rows(sql("lane/clock"))[0][0]
        self._numbers = Numbers()
        self._number = 0  # the lane's, in the transaction that is under way
        self._loaded: dict[int, Run] = {}
        self._found: dict[int, Any] = {}  # rows of runs whose tasks were found, locked as those are
        self._unit: Unit | None = None
        self._acts: list[Act] = []  # what is flushed and not sent yet
        self._brought = Brought()
        self._looked_to: dict[str, tuple[str, str, str]] = {}
        self._begins: dict[Group, tuple[int, int, int]] = {}  # of this batch: the first ready task of each
        self._key_looked_to: dict[Group, str] = {}

    # ── the transaction ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, ahead: Ahead = NOTHING) -> None:
        """In one round trip: begin, the lane's row, and then what the batch is going to ask for first."""
        self._loaded.clear()
        self._found.clear()
        self._numbers.begin()
        self._app.begin()
        self._begins.clear()
        self._brought = Brought()
        with TOLD:
            if self._link.db.closed:
                self._link = Exchange(self._connect(), keeps_plans=True)
            try:
                self._begin(ahead)
            except psycopg.errors.ReadOnlySqlTransaction:
                self._link.db.close()  # another server writes now, and a new connection finds it
                raise

    def _begin(self, ahead: Ahead) -> None:
        asks = asked(ahead, self._numbers)
        begin = [(BEGIN, ()), *self._bound, (sql("lane/begin"), (self._lane,))]
        raised, *answers = self._link.all(*begin, *asks.values())[len(begin) - 1 :]
        self._number, self.now = raised.rows[0]
        self._brought = Brought(ahead, {what: answer.rows for what, answer in zip(asks, answers, strict=True)})
        for kind in ahead.numbers:
            self._numbers.add(kind, self._brought.numbers(kind))

    def commit(self) -> None:
        """What is left to flush goes with it, in one round trip."""
        unit, self._unit = self._unit, None
        try:
            with TOLD_OF_COMMIT:
                *_, done = self._link.all(*self._unsent(), ("commit", ()))
        except BaseException:
            self._numbers.forget()
            raise
        if done.word != "COMMIT":
            raise Retry("the transaction had failed before its commit")
        if unit is not None:
            self._use(unit)

    def _unsent(self) -> list[Statement]:
        acts, self._acts = self._acts, []
        return [(together(tuple(act for act, _ in acts)), [value for _, value in acts])] if acts else []

    def _use(self, unit: Unit) -> None:
        for kind, following in unit.next_no.rows.items():
            self._numbers.used(kind, following)
        self._numbers.leave()

    def rollback(self) -> None:
        """A connection that cannot do it is closed, which does it."""
        self._unit, self._acts = None, []
        try:
            if self._link.db.info.transaction_status != pq.TransactionStatus.IDLE:
                self._link.rows("rollback")
        except psycopg.Error:
            self._link.db.close()

    def abandon(self) -> None:
        self.rollback()
        self._numbers.leave()

    def committed(self) -> bool:
        with TOLD:
            self._link.db.close()
            self._link = Exchange(self._connect(), keeps_plans=True)
            number = self._link.rows(sql("lane/asked"), (self._lane,))[0][0]
        return bool(number >= self._number)

    def close(self) -> None:
        self._link.db.close()

    @property
    def app(self) -> AppTables:
        return self._app

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _all(self, act: str, *values: Any) -> list[Any]:
        return self._rows(sql(act), values)

    def _rows(self, text: str, values: Sequence[Any]) -> list[Any]:
        with TOLD:
            return self._link.rows(text, values)

    def _named(self, act: str, keys: Collection[tuple[Any, str]]) -> list[Any]:
        return self._all(act, *key_columns(keys))

    def runs(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> list[Run]:
        if not ids and self._found.keys() >= set(numbers):
            return self._kept([Run(*self._found[number]) for number in sorted(numbers)])
        return self._kept([Run(*row) for row in self._locked("runs", numbers, ids)])

    def take(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> tuple[list[Run], list[Run]]:
        came = self._brought.runs(numbers, ids)
        rows = self._locked("free_runs", numbers, ids) if came is None else came
        taken = self._kept([Run(*row) for free, *row in rows if free])
        return taken, [] if len(taken) == len(rows) else [Run(*row) for free, *row in rows if not free]

    def _locked(self, what: str, numbers: Collection[int], ids: Collection[tuple[str, str]]) -> list[Any]:
        return self._rows(*named_runs(what, numbers, ids))

    def _kept(self, runs: list[Run]) -> list[Run]:
        """Runs that this batch may write, as they stand in the store."""
        self._loaded.update((run.no, run) for run in runs)
        return runs

    def runs_by_no(self, numbers: Collection[int]) -> list[Run]:
        return [Run(*row) for row in self._all("load/runs_by_no", list(numbers))]

    def runs_by_id(self, ids: Collection[tuple[str, str]]) -> list[Run]:
        return [Run(*row) for row in self._named("load/runs_by_id", ids)]

    def tasks(self, keys: Collection[TaskKey]) -> list[Task]:
        came = self._brought.tasks
        found = [came[key] for key in keys if key in came]
        others = [key for key in keys if key not in came]
        return found + self._tasks(numbers_of(others)) if others else found

    def _tasks(self, numbers: list[int]) -> list[Task]:
        return [Task(*row) for row in self._all("load/tasks", numbers)]

    def open_tasks(self, runs: Collection[int]) -> list[Task]:
        return [Task(*row) for row in self._all("load/open_tasks", list(runs))]

    def children(self, runs: Collection[int]) -> list[tuple[int, int]]:
        return self._all("load/children", list(runs))

    def events(self, keys: Collection[tuple[str, str]]) -> list[Event]:
        return [Event(*row) for row in self._named("load/events", keys)]

    def event_runs(self, events: Collection[int]) -> list[tuple[int, str]]:
        return self._all("load/event_runs", list(events))

    def manifests(self, scopes: Collection[str]) -> list[Manifest]:
        return [Manifest(*row) for row in self._all("load/manifests", list(scopes))]

    def meta(self, keys: Collection[str]) -> list[tuple[str, int]]:
        return self._all("load/meta", list(keys))

    def pools(self, keys: Collection[tuple[str, str]]) -> list[Pool]:
        came = self._brought.pools(keys)
        return [Pool(*row) for row in (self._named("load/pools", keys) if came is None else came)]

    def requests(self, keys: Collection[tuple[str, str]]) -> list[Request]:
        came = self._brought.requests(keys)
        return [Request(*row) for row in (self._named("load/requests", keys) if came is None else came)]

    # ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def leased_counts(self, slots: Sequence[PoolKey]) -> list[int]:
        scopes, pools, keys = zip(*slots, strict=True) if slots else ((), (), ())
        return [row[0] for row in self._all("find/leased_counts", list(scopes), list(pools), list(keys))]

    def ready_groups(self, pools: Collection[str]) -> list[tuple[str, str, str]]:
        return [group for pool in sorted(pools) or ("",) for group in self._groups(pool)]

    def _groups(self, pool: str) -> list[tuple[str, str, str]]:
        """Groups of a pool, or of all pools for "": where there are very many, from where the last look ended."""
        first = (pool, "", "")
        start = self._looked_to.pop(pool, first)
        came = self._brought.groups(pool) if start == first else None
        groups = self._begun(self._rows(*groups_of(pool, start)) if came is None else came)
        if len(groups) < GROUPS and start != first:
            again = self._begun(self._rows(*groups_of(pool, limit=GROUPS - len(groups))))
            groups += [group for group in again if group <= start]
        if len(groups) == GROUPS:
            self._looked_to[pool] = groups[-1]
        return sorted(groups)

    def _begun(self, found: list[Any]) -> list[Group]:
        """Keeps where each begins: what went through it lies dead before that while somebody holds an old snapshot."""
        self._begins.update((row[:3], row[3:]) for row in found)
        return [row[:3] for row in found]

    def _taken(self, fits: Callable[[Task], bool], act: str, *values: Any) -> list[Task]:
        return self._all_taken(fits, (sql(act), values))

    def _all_taken(self, fits: Callable[[Task], bool], *statements: Statement) -> list[Task]:
        """Tasks whose runs are locked now, read again with the lock: whoever had it before may have changed them.

        Where all were changed, there may be others behind them: then it looks again.
        """
        for _ in range(LOOKS):
            with TOLD:
                answers = self._link.all(*statements)
            numbers = list(dict.fromkeys(row[0] for answer in answers for row in answer.rows))
            tasks = {task.run_no << 20 | task.k: task for task in self._with_runs(numbers)} if numbers else {}
            found = [task for number in numbers if (task := tasks.get(number)) is not None and fits(task)]
            if found or not numbers:
                return found
        return []

    def _with_runs(self, numbers: list[int]) -> list[Task]:
        """Tasks whose runs are locked; the runs are what is asked for next, so they come along."""
        runs = {number >> 20 for number in numbers}
        with TOLD:
            tasks, found = self._link.all((sql("load/tasks"), (numbers,)), named_runs("runs", runs, ()))
        self._found.update((row[0], row) for row in found.rows)
        return [Task(*row) for row in tasks.rows]

    def ready(self, wanted: Mapping[Group, int]) -> list[Task]:
        return self._all_taken(_is_ready, self._ready(wanted)) if wanted else []

    def _ready(self, wanted: Mapping[Group, int]) -> Statement:
        rows = [(*group, most, *self._begins.get(group, FIRST)) for group, most in wanted.items()]
        return sql("find/ready"), [list(column) for column in zip(*rows, strict=True)]

    def ready_keys(self, groups: Collection[Group]) -> dict[Group, dict[str, int]]:
        """Of all groups in one round trip; once more for those where the last look did not begin at the first key."""
        starts = {group: self._key_looked_to.pop(group, "") for group in groups}
        keys = self._keys_of({group: (start, KEYS) for group, start in starts.items()})
        left = {group: ("", KEYS - len(keys[group])) for group, start in starts.items() if start}
        for group, more in self._keys_of({group: rest for group, rest in left.items() if rest[1]}).items():
            keys[group].update((key, count) for key, count in more.items() if key <= starts[group])
        self._key_looked_to.update((group, [*found][-1]) for group, found in keys.items() if len(found) == KEYS)
        return keys

    def _keys_of(self, wanted: Mapping[Group, tuple[str, int]]) -> dict[Group, dict[str, int]]:
        """Of each group so many that come after one."""
        if not wanted:
            return {}
        with TOLD:
            answers = self._link.all(*((sql("find/ready_keys"), (*group, *part)) for group, part in wanted.items()))
        return {group: dict(answer.rows) for group, answer in zip(wanted, answers, strict=True)}

    def ready_shares(self, shares: Mapping[Group, Share]) -> list[Task]:
        """All in one round trip, and one more to read them with their locks."""
        statements = [self._ready({group: share.first for group, share in shares.items()})] if shares else []
        statements += [
            (sql("find/ready_of_keys"), (*group, list(share.free), list(share.free.values()), share.most))
            for group, share in shares.items()
            if share.free
        ]
        return self._all_taken(_is_ready, *statements) if statements else []

    def any_ready(self, scope: str, pool: str) -> bool:
        came = self._brought.groups(pool)
        groups = self._groups(pool) if came is None else came
        return len(groups) >= GROUPS or any(group[2] == scope for group in groups)

    def entries_of(self, run_no: int, kinds: Collection[str], until: int) -> list[Entry]:
        rows = self._all("find/entries_of", run_no, list(kinds), until)
        return resolve_entries(self._all, [Entry(*row) for row in rows])

    def blobs(self, keys: Collection[tuple[int, str]]) -> list[Blob]:
        return [Blob(*row) for row in self._named("load/blobs", keys)]

    def late(self, now: int, limit: int) -> list[Task]:
        def fits(task: Task) -> bool:
            return task.state != "done" and task.deadline is not None and task.deadline <= now

        return self._taken(fits, "find/late", now, limit)

    def expired(self, now: int, limit: int) -> list[Task]:
        def fits(task: Task) -> bool:
            return task.state == "leased" and (task.lease_until or 0) < now

        return self._taken(fits, "find/expired", now, limit)

    def leased_by(self, worker: str, limit: int) -> list[Task]:
        def fits(task: Task) -> bool:
            return task.state == "leased" and task.worker == worker

        return self._taken(fits, "find/leased_by", worker, limit)

    def overdue(self, now: int, asked_before: int, limit: int) -> list[Run]:
        numbers = [row[0] for row in self._all("find/overdue", now, asked_before, limit)]
        return sorted(self._kept(self.runs_by_no(numbers)), key=lambda run: run.no) if numbers else []

    def due(self, now: int, limit: int) -> list[Task]:
        def fits(task: Task) -> bool:
            return task.state == "due" and (task.due_at or 0) <= now

        return self._taken(fits, "find/due", now, limit)

    def messages(self, limit: int, functions: Collection[str] = ()) -> tuple[list[Message], bool]:
        """Those of runs that another lane has are left out, and make room for what is behind them."""
        names, busy = sorted(functions), list[int]()
        for _ in range(LOOKS):
            found = self._all("find/receivers", limit, names, busy)
            more = [number for number, free in found if not free]
            busy += more
            if not more:
                break
        receivers = [number for number, free in found if free]
        return [Message(*row) for row in self._all("find/messages", limit, names, receivers)], bool(busy)

    def blocked_keys(self, after: Key, limit: int) -> list[Key]:
        return self._all("find/blocked_keys", *after, limit)

    def blocked(self, wanted: Mapping[Key, int]) -> list[Task]:
        scopes, pools, keys = map(list, zip(*wanted, strict=True)) if wanted else ([], [], [])
        most = list(wanted.values())
        return self._taken(lambda task: task.state == "blocked", "find/blocked", scopes, pools, keys, most)

    def blocked_besides(self, keys: Collection[Key], tasks: Collection[Task]) -> list[Key]:
        scopes, pools, names = map(list, zip(*keys, strict=True)) if keys else ([], [], [])
        numbers = numbers_of([(task.run_no, task.k) for task in tasks])
        return self._all("find/blocked_besides", scopes, pools, names, numbers)

    def prunable_runs(self, before: int, limit: int) -> list[Run]:
        return self._kept([Run(*row) for row in self._all("find/prunable_runs", before, limit)])

    def prunable_events(self, before: int, runs: Collection[Run], limit: int) -> list[Event]:
        rows = self._all("find/unmatched_events", before, limit)
        events = [run.event_no for run in runs if run.event_no is not None]
        if events:
            rows += self._all("find/prunable_events", before, events, [run.no for run in runs])
        return sorted((Event(*row) for row in rows), key=lambda event: event.no)

    def prunable_requests(self, now: int, limit: int) -> list[Request]:
        return [Request(*row) for row in self._all("find/prunable_requests", now, limit)]

    def prunable_changes(self, keep: int, limit: int) -> int:
        rows = self._all("find/prunable_changes", keep, limit)
        return int(rows[0][0]) if rows else 0

    def numbers(self, kind: str, count: int) -> int:
        with TOLD:
            return self._numbers.take(self._link, kind, count)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def flush(self, unit: Unit, now: int) -> None:
        """Sent with the commit, or before the first reading."""
        with TOLD:
            self._acts = acts(unit, self._loaded, now)
        self._unit = unit

    def read(self, readings: Sequence[Reading]) -> None:
        if unsent := self._unsent():
            try:
                with TOLD:
                    self._link.all(*unsent)
            except BaseException:
                self._numbers.forget()
                raise
        journals = [one for one in readings if one.what in _OF_JOURNALS]
        for reading, entries in zip(journals, self._journals(journals), strict=True):
            setattr(reading.reply, reading.field, _OF_JOURNALS[reading.what](entries))
        for reading in readings:
            if reading.what not in _OF_JOURNALS:
                setattr(reading.reply, reading.field, self._read(reading))

    def _journals(self, readings: Sequence[Reading]) -> list[list[Entry]]:
        """The part of a journal that each of them is about: all in one round trip."""
        if not readings:
            return []
        numbers, after = [one.run_no for one in readings], [one.after for one in readings]
        until = [one.until + (one.what == "journal") for one in readings]
        parts: list[list[Entry]] = [[] for _ in readings]
        for *row, place in self._all("list/entries_between", numbers, after, until):
            parts[place - 1].append(Entry(*row))
        return [resolve_entries(self._all, entries) for entries in parts]

    def _read(self, reading: Reading) -> Any:
        if reading.what == "blob":
            return text_of_blob(self._all, reading.run_no, 0, "@" + reading.hash)
        if reading.what == "at":
            return self._all("find/time_of", reading.run_no, reading.until)[0][0]
        rows = self._all("list/event_by_no", reading.event_no)
        return resolve_event(self._all, Event(*rows[0])) if rows else None


def _is_ready(task: Task) -> bool:
    return task.state == "ready"


#: What a reply wants of a part of a journal.
_OF_JOURNALS: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "journal": kept,
    "own": lambda entries: [one for one in entries if one.n],
    "missed": lambda entries: [one for one in entries if one.kind in DELIVERABLE],
}

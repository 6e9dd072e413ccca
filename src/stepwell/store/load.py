"""The load: brings what a batch needs into a unit of work. One order of reading for every store.

The runs that the batch names come first, in one statement: there a store that locks rows waits for other lanes. So it
does for events, and then for pools with a limit, all in one statement as well. Then comes work that nobody named, of
which such a store takes what is free, and then what belongs to all of them.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from stepwell.kernel.again import KINDS, under_way
from stepwell.kernel.dedup import dedup_key
from stepwell.kernel.fold import body_of
from stepwell.kernel.leases import claim_key, worth_writing
from stepwell.kernel.needs import Need
from stepwell.kernel.tasks import place
from stepwell.kernel.unit import PoolKey, Table, Unit
from stepwell.model import commands as c
from stepwell.model.entries import ChildStarted
from stepwell.model.rows import Run, Task
from stepwell.store.candidates import Look, candidates, count_used, keys_of, looks_of
from stepwell.store.port import Ahead, Session

T = TypeVar("T")
DAY_MS = 86_400_000
PROMOTED = 1_000
#: How many entries, requests or changes one commit deletes.
PRUNED_ROWS = 20_000
_LEASES = msgspec.json.Decoder(list[tuple[int, int, int]])


def load(session: Session, unit: Unit, need: Need, now: int, *, wait: bool = False) -> None:
    """Fills `unit` with what `need` names; but for runs that another lane has, unless it is to `wait` for them."""
    found: list[Task] = []
    numbers, by_id = need.runs | need.closing, need.ids | need.closing_ids
    if need.requests or need.claims:
        claimed = _requests(session, unit, need)
        _take_runs(unit, session.runs(claimed) if claimed else [])
    named = _named(session, unit, numbers, by_id, wait=wait) if numbers or by_id else []
    if need.events or need.revisions or need.manifests:
        _events(session, unit, need)
    if c.Promote in need.internal:
        _blocked_keys(session, unit, need)
    looks = looks_of(session, need)
    _limits(session, unit, need, looks)
    found += candidates(session, unit, need, looks, now)
    more: set[int] = set()
    if need.internal:
        tasks, more = _work(session, unit, need.internal, now)
        found += tasks
        need.closing |= more | {task.run_no for task in tasks}
    if need.dead:
        found += _dead(session, unit, need)
    if need.promote:
        found += _blocked(session, unit, need.promote)
    more = (more | {task.run_no for task in found}) - unit.runs.rows.keys()
    _take_runs(unit, session.runs(more) if more else [])
    need.closing |= {run.no for run in named if (run.scope, run.id) in need.closing_ids}
    need.closing |= {no for no, k in need.ending if (run := unit.runs.get(no)) is not None and run.turn == k}
    if need.beats:
        _beats(session, unit, need, now)
    if need.restarts:
        _kept(session, unit, need)
    _onward(session, unit, need, named)
    if need.peer_signals or unit.work.messages:
        _dedups(session, unit, need)
    _tasks(session, unit, need, found, named)
    _closing(session, unit, need.closing)
    _keys_used(session, unit, need, found)
    if need.new_runs:
        unit.next_no.seed("run", session.numbers("run", need.new_runs))
    if need.new_events:
        unit.next_no.seed("event", session.numbers("event", need.new_events))


def _named(session: Session, unit: Unit, numbers: set[int], ids: set[tuple[str, str]], *, wait: bool) -> list[Run]:
    """The runs that commands name; answers those that they name by id."""
    runs, busy = (session.runs(numbers, ids), []) if wait else session.take(numbers, ids)
    _take_runs(unit, runs)
    unit.busy.update(key for run in busy for key in (run.no, (run.scope, run.id)))
    return [run for run in runs if (run.scope, run.id) in ids]


def ahead(need: Need) -> Ahead:
    """What `load` asks for first. Requests come before runs, events before pools; claims find pools of their own."""
    numbers = {"run": need.new_runs, "event": need.new_events}
    if need.requests or need.claims:
        looked_at = frozenset(pool for claim in need.claims for pool in claim.pools or ("",))
        return Ahead(requests=frozenset(_named_requests(need)), ready=looked_at, numbers=numbers)
    promotes = c.Promote in need.internal
    return Ahead(
        runs=frozenset(need.runs | need.closing),
        ids=frozenset(need.ids | need.closing_ids),
        tasks=frozenset(need.tasks),
        pools=frozenset() if need.events or promotes else frozenset(_named_pools(need)),
        ready=frozenset() if need.events or promotes else frozenset(name for _, name, _ in need.slots),
        numbers=numbers,
    )


def _named_requests(need: Need) -> set[tuple[str, str]]:
    return need.requests | {claim_key(claim) for claim in need.claims}


def _named_pools(need: Need) -> set[tuple[str, str]]:
    return need.pools | need.limiting | {(scope, name) for scope, name, _ in need.promote}


def _seed_runs(unit: Unit, runs: list[Run]) -> None:
    for run in runs:
        unit.runs.seed(run.no, run)
        unit.ids.seed((run.scope, run.id), run.no)


def _take_runs(unit: Unit, runs: list[Run]) -> None:
    """Runs that are this batch's from now on: what was only looked at before may have changed until then."""
    for run in runs:
        unit.runs.renew(run.no, run)
        unit.ids.seed((run.scope, run.id), run.no)


def _beats(session: Session, unit: Unit, need: Need, now: int) -> None:
    """Runs that only heartbeats name: looked at, and taken where there is something to write and nobody else has them.

    So heartbeats wait for nobody, and who writes a run does not wait for the thousand others of a heartbeat.
    """
    beats, ours = need.beats, unit.runs.rows
    tasks = session.tasks([key for key in beats if key[0] not in ours])
    to_write = {
        task.run_no
        for task in tasks
        if task.state == "leased"
        and ((key := (task.run_no, task.k)) in need.telling or worth_writing(task, beats[key], now))
    }
    _take_runs(unit, session.take(to_write)[0] if to_write else [])
    need.tasks.update(key for key in beats if key[0] in ours)
    others = [task for task in tasks if task.run_no not in ours]
    for task in others:
        unit.tasks.seed((task.run_no, task.k), task)
    unit.looked_at = {task.run_no for task in others}
    _seed_runs(unit, session.runs_by_no(unit.looked_at) if others else [])


def _onward(session: Session, unit: Unit, need: Need, named: list[Run]) -> None:
    """Runs that continue a named one, and children that are about to be started, whose scope is the parent's."""
    onward = {run.next_no for run in named if run.next_no is not None}
    if onward:
        _seed_runs(unit, session.runs_by_no(onward))
    if need.peers:
        keys = {(run.scope, peer) for no, peer in need.peers if (run := unit.runs.get(no)) is not None}
        _seed_runs(unit, session.runs_by_id(keys))


def _kept(session: Session, unit: Unit, need: Need) -> None:
    """What restarts keep and has not ended there: the tasks of actions, and the children with how they ended."""
    children: set[tuple[str, str]] = set()
    for scope, run_id, keep_seq in need.restarts:
        run = unit.run_by_id(scope, run_id)
        if run is None:
            continue
        entries = unit.kept[(run.no, keep_seq)] = session.entries_of(run.no, KINDS, keep_seq)
        for entry in under_way(entries, keep_seq):
            body = body_of(entry)
            if isinstance(body, ChildStarted):
                children.add((scope, body.child))
            else:
                need.tasks.add((run.no, entry.seq))
    runs = session.runs_by_id(children) if children else []
    _seed_runs(unit, runs)
    ends = ((run.no, end[1:]) for run in runs for end in (run.result, run.error) if end and end.startswith("@"))
    for blob in session.blobs(list(ends)):
        unit.blobs.seed((blob.run_no, 0, blob.hash), blob)


def _dedups(session: Session, unit: Unit, need: Need) -> None:
    """Which of the signals between runs came before."""
    keys = {
        dedup_key(run.scope, peer, dedup)
        for no, peer, dedup in need.peer_signals
        if (run := unit.runs.get(no)) is not None
    }
    for message in unit.work.messages:
        run = unit.runs.get(message.to_no)
        if message.kind == "signal" and message.key is not None and run is not None:
            keys.add(dedup_key(run.scope, run.id, message.key))
    for request in session.requests(keys) if keys else ():
        unit.requests.seed((request.scope, request.key), request)


def _tasks(session: Session, unit: Unit, need: Need, found: list[Task], named: list[Run]) -> None:
    keys = set(need.tasks)
    for number in need.turns | need.closing | {run.no for run in named} | {task.run_no for task in found}:
        run = unit.runs.get(number)
        if run is not None:
            keys.add((number, run.turn))
    for task in found:
        unit.tasks.seed((task.run_no, task.k), task)
    ours, old = unit.runs.rows, unit.looked_at
    keys = {key for key in keys if key not in unit.tasks.rows or key[0] in old}
    keys = {key for key in keys if key[0] not in unit.busy or key[0] in ours}
    for task in session.tasks(keys) if keys else ():
        unit.tasks.renew((task.run_no, task.k), task)


def _closing(session: Session, unit: Unit, closing: set[int]) -> None:
    runs = [run for number in closing if (run := unit.runs.get(number)) is not None]
    with_actions = [run.no for run in runs if run.open_actions]
    with_children = [run.no for run in runs if run.open_children]
    tasks = session.open_tasks(with_actions) if with_actions else []
    for task in tasks:
        unit.tasks.renew((task.run_no, task.k), task)
    _join(unit.open_tasks, ((task.run_no, task.k) for task in tasks))
    _join(unit.children, session.children(with_children) if with_children else ())


def _join(table: Table[int, tuple[T, ...]], found: Iterable[tuple[int, T]]) -> None:
    """Adds members to rows: what a command inside another one needs may have been loaded before."""
    members: dict[int, dict[T, None]] = {}
    for number, member in found:
        if number not in members:
            members[number] = dict.fromkeys(table.get(number) or ())
        members[number][member] = None
    for number, row in members.items():
        table.replace(number, tuple(row))


def _requests(session: Session, unit: Unit, need: Need) -> set[int]:
    runs: set[int] = set()
    for request in session.requests(_named_requests(need)):
        unit.requests.seed((request.scope, request.key), request)
        if request.key.startswith("claim:"):
            for run_no, k, _ in _LEASES.decode(request.reply):
                need.tasks.add((run_no, k))
                runs.add(run_no)
    need.turns |= runs
    return runs


def _work(session: Session, unit: Unit, internal: dict[type[c.Command], int], now: int) -> tuple[list[Task], set[int]]:
    """What the store's indexes have for the internal commands of the batch."""
    tasks: list[Task] = []
    runs: set[int] = set()
    work, settings = unit.work, unit.settings
    for kind, limit in internal.items():
        if kind is c.Sweep:
            late, expired = session.late(now, limit), session.expired(now, limit)
            overdue = session.overdue(now, now - settings.cancel_grace_ms, limit)
            work.late, work.expired, work.overdue = keys_of(late), keys_of(expired), [run.no for run in overdue]
            tasks += late + expired
            runs |= set(work.overdue)
        elif kind is c.Fire:
            due = session.due(now, limit)
            work.due = keys_of(due)
            tasks += due
        elif kind is c.Deliver:
            names = () if unit.mutations is None or unit.calls.elsewhere else unit.mutations.names
            work.messages, work.left_out = session.messages(limit, names)
            runs |= {message.to_no for message in work.messages}
        elif kind is c.Prune:
            before = now - settings.event_retention_days * DAY_MS
            ended = _not_too_much(session.prunable_runs(before, limit))
            work.prune_runs = [run.no for run in ended]
            runs |= set(work.prune_runs)
            events = session.prunable_events(before, ended, limit)
            work.prune_events = [(event.scope, event.id) for event in events]
            for event in events:
                unit.events.seed((event.scope, event.id), event)
            # a replay may have come between the look and the lock
            _join(unit.event_runs, session.event_runs([event.no for event in events]) if events else ())
            requests = session.prunable_requests(now, PRUNED_ROWS)
            work.prune_requests = [(request.scope, request.key) for request in requests]
            for request in requests:
                unit.requests.seed((request.scope, request.key), request)
            work.prune_changes = session.prunable_changes(settings.change_retention, PRUNED_ROWS)
            for key, value in session.meta([f"floor:{run.scope}" for run in ended]):
                unit.floors.seed(key.partition(":")[2], value)
    return tasks, runs


def _dead(session: Session, unit: Unit, need: Need) -> list[Task]:
    """What dead workers hold."""
    held = {worker: session.leased_by(worker, limit) for worker, limit in need.dead.items()}
    unit.work.dead = {worker: keys_of(tasks) for worker, tasks in held.items()}
    return [task for tasks in held.values() for task in tasks]


def _not_too_much(runs: list[Run]) -> list[Run]:
    """As many of the runs as have a bounded number of entries; at least one."""
    entries = 0
    chosen: list[Run] = []
    for run in runs:
        entries += run.head_seq
        if chosen and entries > PRUNED_ROWS:
            break
        chosen.append(run)
    return chosen


def _blocked_keys(session: Session, unit: Unit, need: Need) -> None:
    """The next keys that a promotion looks at."""
    limit = need.internal[c.Promote]
    keys = session.blocked_keys(need.promote_after, limit)
    unit.work.promoted_to = keys[-1] if len(keys) >= limit else None
    need.promote.update(keys)


def _blocked(session: Session, unit: Unit, keys: set[tuple[str, str, str]]) -> list[Task]:
    """As many blocked tasks of each key as it has free slots."""
    slots = sorted(keys)
    wanted: dict[tuple[str, str, str], int] = {}
    for slot, used in zip(slots, session.leased_counts(slots), strict=True):
        pool = unit.pools.get(slot[:2])
        free = PROMOTED if pool is None or pool.key_limit is None else pool.key_limit - used
        if free > 0:
            wanted[slot] = min(free, PROMOTED)
    found = session.blocked(wanted) if wanted else []
    counts = Counter((task.scope, task.pool, task.pool_key) for task in found)
    short = [slot for slot, count in wanted.items() if counts[slot] < count]
    unit.work.blocked = keys_of(found)
    unit.work.blocked_left = tuple(session.blocked_besides(short, found)) if short else ()
    return found


def _events(session: Session, unit: Unit, need: Need) -> None:
    events = session.events(need.events) if need.events else []
    for event in events:
        unit.events.seed((event.scope, event.id), event)
    _join(unit.event_runs, session.event_runs([event.no for event in events]) if events else ())
    for key, value in session.meta([f"revision:{scope}" for scope in need.revisions]):
        unit.revisions.seed(key.partition(":")[2], value)
    for manifest in session.manifests(need.manifests) if need.manifests else ():
        unit.manifests.seed((manifest.scope, manifest.name), manifest)


def _limits(session: Session, unit: Unit, need: Need, looks: list[Look]) -> None:
    """The pools that tasks are leased from or promoted in, and how much of them is used.

    Nobody else has them until the commit, so they come all at once, and before anything that is only taken.
    """
    keys = _named_pools(need) | {(scope, name) for look in looks for name, _, scope in look.groups}
    limited = session.pools(keys) if keys else ()
    for pool in limited:
        unit.pools.seed((pool.scope, pool.name), pool)
    counted = need.limiting | {(one.scope, one.name) for one in limited if one.limit is not None}
    keyed = {(one.scope, one.name) for one in limited if one.key_limit is not None}
    slots: list[PoolKey] = [(scope, name, None) for scope, name in counted]
    slots += [slot for slot in need.slots if slot[2] is not None and slot[:2] in keyed]
    count_used(session, unit, slots)
    for scope, name, _ in need.slots:
        unit.ready_ahead.seed((scope, name), session.any_ready(scope, name))


def _keys_used(session: Session, unit: Unit, need: Need, found: list[Task]) -> None:
    """How much is used of the keys that tasks may be leased for, and who is blocked there before them."""
    limited = {key for key, pool in unit.pools.rows.items() if pool.key_limit is not None} | need.limiting
    slots = need.slots | {(task.scope, task.pool, task.pool_key) for task in found} if limited else set()
    keyed = [(scope, name, key) for scope, name, key in slots if key is not None and (scope, name) in limited]
    count_used(session, unit, keyed)
    if keyed and (need.claims or need.slots):
        for task in session.blocked(dict.fromkeys(keyed, 1)):
            unit.first_blocked.seed((task.scope, task.pool, task.pool_key), place(task))

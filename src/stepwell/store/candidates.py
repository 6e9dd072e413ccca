"""Candidates: the ready tasks that claims may lease. Whoever is looked at is locked, so as few as possible are."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from stepwell.kernel.needs import Need
from stepwell.kernel.tasks import free_slots, place
from stepwell.kernel.unit import PoolKey, TaskKey, Unit, claim_signature
from stepwell.model import commands as c
from stepwell.model.rows import Task
from stepwell.store.port import Group, Session, Share

#: How many ready tasks of a pool with a limit for each key a claim looks at, if some are to be moved aside since their
#: key is full: each costs a write, and meanwhile nobody else leases from the pool.
MOVED_ASIDE = 50


class Look(Struct, gc=False):
    """Where the claims of one signature find their tasks: the (pool, requires, scope), and how many of each."""

    signature: tuple[object, ...]
    most: int
    groups: list[Group]


def looks_of(session: Session, need: Need) -> list[Look]:
    """Where the claims of a batch look: one look for those that choose among the same tasks."""
    wanted: dict[tuple[object, ...], tuple[c.Claim, int]] = {}
    for claim in need.claims:
        signature = claim_signature(claim)
        limit = wanted[signature][1] if signature in wanted else 0
        wanted[signature] = (claim, limit + claim.limit)
    return [
        Look(signature, limit, [group for group in session.ready_groups(claim.pools) if _fits(claim, group)])
        for signature, (claim, limit) in wanted.items()
    ]


def candidates(session: Session, unit: Unit, need: Need, looks: list[Look], now: int) -> list[Task]:
    """What claims may lease. Who cannot be leased is not looked at, since whoever is looked at is locked."""
    found: dict[TaskKey, Task] = {}
    for look in looks:
        most = min(look.most, unit.settings.claim_limit)
        free = {group: slots for group in look.groups if (slots := _free(unit, need, group, most, now)) > 0}
        keyed = {group: row.key_limit for group in free if (row := unit.pools.get((group[2], group[0])))}
        tasks = _first(session, {group: free[group] for group in free if keyed.get(group) is None}, most)
        limits = {group: key_limit for group, key_limit in keyed.items() if key_limit is not None}
        tasks += _keyed(session, unit, limits, free) if limits else []
        found.update({(task.run_no, task.k): task for task in tasks})
        unit.candidates[look.signature] = list(dict.fromkeys(keys_of(tasks)))
        if len(tasks) >= most:
            unit.cut_off.add(look.signature)
    return list(found.values())


def _free(unit: Unit, need: Need, group: Group, most: int, now: int) -> int:
    """How many tasks of a group this batch may lease, at most `most`, if all that it may end was of the same pool."""
    pool = unit.pools.get((group[2], group[0]))
    if pool is None or (pool.scope, pool.name) in need.limiting:
        return most
    used = unit.used.get((pool.scope, pool.name, None)) or 0
    ends = len(need.tasks) + len(need.closing) + len(need.closing_ids)
    return int(min(most, free_slots(pool, max(0, used - ends), now)))


def _first(session: Session, free: dict[Group, int], most: int) -> list[Task]:
    """The first tasks of all groups, at least `most` where so many are ready: each scope has the same share of a claim.

    A group gives more where that is too few, and where it would be passed by another one of its scope; but no more than
    it has `free` slots.
    """
    scopes = Counter(scope for _, _, scope in free)
    share = -(-most // max(1, len(scopes)))
    wanted = {group: min(-(-share // scopes[group[2]]), slots) for group, slots in free.items()}
    found: dict[TaskKey, Task] = {}
    while wanted:
        tasks = session.ready(wanted)
        found.update(((task.run_no, task.k), task) for task in tasks)
        counts = Counter(map(_group, tasks))
        last = {_group(task): task.priority for task in tasks}
        lowest: dict[str, int] = {}
        for task in found.values():
            lowest[task.scope] = max(task.priority, lowest.get(task.scope, task.priority))
        wanted = {
            group: min(count * 4, free[group])
            for group, count in wanted.items()
            if count < free[group] and counts[group] >= count and (len(found) < most or last[group] < lowest[group[2]])
        }
    return list(found.values())


def _group(task: Task) -> Group:
    return task.pool, task.requires, task.scope


def _keyed(session: Session, unit: Unit, limits: dict[Group, int], free: dict[Group, int]) -> list[Task]:
    """What may be leased of groups whose keys have limits: of each as many as it has `free` slots.

    The first, whatever their keys, of which those of full keys are moved aside; and those of keys with a free slot,
    however many are before them. More of the first where not one of them is to be moved aside.
    """
    shares: dict[Group, Share] = {}
    for group, keys in session.ready_keys(limits.keys()).items():
        left = {key: limits[group] - _known(unit, group, key, count) for key, count in keys.items()}
        slots = {key: min(count, free[group]) for key, count in left.items() if count > 0}
        shares[group] = Share(MOVED_ASIDE, slots, free[group])
    tasks = session.ready_shares(shares)
    first = {group: _first_of(tasks, group) for group in limits if free[group] > MOVED_ASIDE}
    count_used(session, unit, [slot for found in first.values() for slot in _slots(found)])
    more = {
        group: free[group]
        for group, found in first.items()
        if len(found) == MOVED_ASIDE
        and all(count + unit.used.rows[slot] <= limits[group] for slot, count in _slots(found).items())
    }
    return tasks + (session.ready(more) if more else [])


def _known(unit: Unit, group: Group, key: str, count: int) -> int:
    """How many tasks of a key are leased, of which the store says `count`."""
    name, _, scope = group
    unit.used.seed((scope, name, key), count)
    return unit.used.rows[(scope, name, key)]


def _first_of(tasks: list[Task], group: Group) -> list[Task]:
    return sorted((task for task in tasks if _group(task) == group), key=place)[:MOVED_ASIDE]


def _slots(tasks: list[Task]) -> Counter[PoolKey]:
    """How many of the tasks there are of each key."""
    return Counter((task.scope, task.pool, task.pool_key) for task in tasks if task.pool_key is not None)


def _fits(claim: c.Claim, group: Group) -> bool:
    """Whether a claim takes tasks of a (pool, requires, scope)."""
    _, requires, scope = group
    return claim.scope in (None, scope) and (claim.requires is None or requires in claim.requires)


def count_used(session: Session, unit: Unit, slots: Sequence[PoolKey]) -> None:
    """Brings how many tasks of each slot are leased, as far as it is not known."""
    slots = [slot for slot in slots if unit.used.get(slot) is None]
    for slot, count in zip(slots, session.leased_counts(slots) if slots else (), strict=True):
        unit.used.seed(slot, count)


def keys_of(tasks: list[Task]) -> list[TaskKey]:
    """Under which keys the unit has them."""
    return [(task.run_no, task.k) for task in tasks]

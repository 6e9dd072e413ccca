"""Tasks: their states, the slots of pools, and the delay before a retry."""

import logging
from math import inf
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from stepwell.kernel import check
from stepwell.kernel.unit import NEW, Place, TaskKey, Unit
from stepwell.model.errors import Invalid
from stepwell.model.ids import unit_interval
from stepwell.model.rows import Pool, Task
from stepwell.model.words import TRANSITIONS, TaskState

#: By how much a pool may have been refilled after now, where one lane waited for another that had a later time. Past it
#: the clock was put back, as by a failover to a server whose clock is behind.
AHEAD_MS = 10_000

log = logging.getLogger("stepwell.kernel")


def move(unit: Unit, key: TaskKey, state: TaskState, now: int) -> Task:
    """Changes a task's state along the table of transitions; answers the row, for what else the caller sets."""
    task = unit.tasks.edit(key)
    assert state in TRANSITIONS[task.state], f"{task.state} -> {state}"
    if task.state == "leased":
        count(unit, task, -1)
        task.worker = task.leased_at = task.lease_until = None
    elif state == "leased":
        count(unit, task, 1)
    elif state == "blocked":
        slot_key, mine = (task.scope, task.pool, task.pool_key), place(task)
        unit.first_blocked.put(slot_key, min(mine, unit.first_blocked.get(slot_key) or mine))
    task.state = state
    if state == "ready":
        task.order = now
        unit.ready_ahead.put((task.scope, task.pool), True)
    if state != "due":
        task.due_at = task.due_key = None
    return task


def outlived(unit: Unit, key: TaskKey, now: int) -> bool:
    """Whether a task was left open by the end of its run, as no rule does. It is closed then, and holds up no other."""
    run = unit.runs.rows[key[0]]
    if not run.terminal:
        return False
    log.error("task %d of run %s is %s after its end: it is closed", key[1], run.id, unit.tasks.rows[key].state)
    move(unit, key, "done", now)
    return True


def count(unit: Unit, task: Task, by: int) -> None:
    """Keeps the numbers of leased tasks of a limited pool, where the load brought them."""
    for key in ((task.scope, task.pool, None), (task.scope, task.pool, task.pool_key)):
        used = unit.used.get(key)
        if used is not None:
            unit.used.put(key, used + by)
        if task.pool_key is None:
            return


def place(task: Task) -> Place:
    """Where a task stands among those of its key."""
    return task.priority, task.order, task.run_no, task.k


def slot(unit: Unit, task: Task, now: int) -> str:
    """Whether the pool lets a ready task be leased: free, paused, new, full, key_full or rate.

    A key is also full for what comes after one that is blocked: a slot that came free is for that one.
    """
    pool = unit.pools.get((task.scope, task.pool))
    if pool is None:
        return "free"
    if pool.paused:
        return "paused"
    if unit.pools.dirty.get((task.scope, task.pool)) == NEW:
        return "new"  # until these limits are committed other lanes do not see them, so nobody can count
    if pool.limit is not None and (unit.used.get((task.scope, task.pool, None)) or 0) >= pool.limit:
        return "full"
    if pool.key_limit is not None and task.pool_key is not None:
        slot_key = (task.scope, task.pool, task.pool_key)
        first = unit.first_blocked.get(slot_key)
        if (unit.used.get(slot_key) or 0) >= pool.key_limit or (first is not None and first < place(task)):
            return "key_full"
    if pool.rate is not None and tokens(pool.tokens, pool.rate, pool.rate_ms, now - pool.refilled_at) < 1:
        return "rate"
    return "free"


def follow_clock(unit: Unit, task: Task, now: int) -> None:
    """A pool that was refilled later than now, since the clock was put back, is refilled from now on."""
    pool = unit.pools.get((task.scope, task.pool))
    if pool is not None and is_ahead(pool, now):
        unit.pools.edit((task.scope, task.pool)).refilled_at = now


def is_ahead(pool: Pool, now: int) -> bool:
    """Whether the clock was put back since the pool was refilled."""
    return pool.rate is not None and pool.refilled_at > now + AHEAD_MS


def free_slots(pool: Pool, used: int, now: int) -> float:
    """How many more tasks a pool lets be leased now, of which `used` are, as far as no key is full."""
    if pool.paused:
        return 0
    left = inf if pool.limit is None else pool.limit - used
    if pool.rate is None:
        return left
    if is_ahead(pool, now):  # one to look at: `follow_clock` puts it right
        return min(left, 1)
    return min(left, tokens(pool.tokens, pool.rate, pool.rate_ms, now - pool.refilled_at))


def take(unit: Unit, task: Task, now: int) -> None:
    """Takes a token from a pool with a rate."""
    pool = unit.pools.get((task.scope, task.pool))
    if pool is not None and pool.rate is not None:
        mine = unit.pools.edit((task.scope, task.pool))
        mine.tokens = tokens(pool.tokens, pool.rate, pool.rate_ms, now - pool.refilled_at) - 1
        mine.refilled_at = max(now, pool.refilled_at)


def tokens(left: float, rate: int, rate_ms: int, elapsed_ms: int) -> float:
    """What a bucket of `rate` tokens holds, `elapsed_ms` after it held `left`."""
    return min(float(rate), left + max(elapsed_ms, 0) * rate / rate_ms)


DAY_MS = 86_400_000
Whole = Annotated[int, Meta(ge=0, le=365 * DAY_MS)]


class RetryPolicy(Struct, frozen=True, gc=False):
    """Delay before retry n: initial_ms * factor ** (n - 1) * (0.5 + u), at most max_ms; attempts count the first."""

    max_attempts: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    initial_ms: Whole = 250
    factor: Annotated[float, Meta(ge=1, le=1_000)] = 2.0
    max_ms: Whole = 3_600_000

    def delay_ms(self, failures: int, jitter: float) -> int:
        """After `failures` failures; `jitter` in [0, 1)."""
        steep = self.factor ** min(failures - 1, 64)
        return min(self.max_ms, int(min(self.initial_ms * steep, 1e15) * (0.5 + jitter)))


_RETRY = msgspec.json.Decoder(RetryPolicy)
_LOST = RetryPolicy(initial_ms=1_000, max_ms=60_000)


def check_retry(text: str | None) -> None:
    """A retry policy as JSON, before it is stored: what cannot be used is refused, since a failure comes too late."""
    try:
        RetryPolicy() if text is None else _RETRY.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = 'For example {"max_attempts": 3, "initial_ms": 250, "factor": 2, "max_ms": 60000}.'
        raise Invalid(f"the retry policy cannot be used: {error}", field="retry", hint=hint) from None


def check_place(pool: str, pool_key: str | None, priority: int) -> None:
    """Where a task is to wait for a worker."""
    check.name("pool", pool)
    check.whole("priority", priority, *check.PRIORITY)
    if pool_key is not None:
        check.run_id(pool_key)


def retry_at(task: Task, now: int) -> int | None:
    """When a task that failed once more is tried again; None: never."""
    policy = RetryPolicy() if task.retry is None else _RETRY.decode(task.retry)
    if task.failures >= policy.max_attempts:
        return None
    return now + policy.delay_ms(task.failures, unit_interval(task.run_no, task.k, task.attempt))


def lost_at(task: Task, now: int) -> int:
    """When a task whose lease was lost is tried again: at once, then with growing back-off."""
    if task.lost <= 1:
        return now
    return now + _LOST.delay_ms(task.lost - 1, unit_interval(task.run_no, task.k, task.attempt))

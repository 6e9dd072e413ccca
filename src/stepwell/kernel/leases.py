"""Leases: claiming, fencing, heartbeats, giving back (laws 3 and 4)."""

import hashlib
from collections import deque
from itertools import zip_longest
from typing import Any

import msgspec

from stepwell.kernel import check
from stepwell.kernel.holds import hold
from stepwell.kernel.journal import append
from stepwell.kernel.tasks import follow_clock, move, outlived, slot, take
from stepwell.kernel.unit import Reading, TaskKey, Unit, claim_signature
from stepwell.model import errors
from stepwell.model.commands import Beat, Beats, Claim, Claimed, Done, Lease, Leased, Sync, Synced
from stepwell.model.entries import AttemptEnded, AttemptStarted, RunHeld
from stepwell.model.ids import lease_token, token_hash, unit_interval
from stepwell.model.rows import Request, Run, Task

_Answer = list[tuple[int, int, int]]
#: A heartbeat that would make a lease longer by less than this part of it writes nothing: a worker sends many.
WORTH_WRITING = 8
#: A claim that brings so many entries of journals brings no more runs: the lane reads them.
MAX_ENTRIES = 20_000


def claim(unit: Unit, command: Claim, now: int) -> Claimed:
    """`Claim`: leases ready tasks, of each scope in turn, by (priority, order); nobody waits behind a full key."""
    _check_claim(unit, command)
    key = claim_key(command)
    before = unit.requests.get(key)
    if before is not None:
        return _again(unit, command, before, now)
    claimed, entries = Claimed([], now), 0
    queue = _queue(unit, command)
    while queue and len(claimed.tasks) < command.limit and entries < MAX_ENTRIES:
        task_key = queue.popleft()
        task = unit.tasks.rows[task_key]
        if task.state != "ready" or (task.deadline is not None and task.deadline <= now):
            continue
        if outlived(unit, task_key, now):
            claimed.more = True
            continue
        follow_clock(unit, task, now)
        verdict = slot(unit, task, now)
        if verdict == "free":
            leased = grant(
                unit, task_key, command.worker, command.lease_ms, command.request, command.version, now, via=command.via
            )
            claimed.tasks.append(leased)
            entries += leased.seen if leased.kind == "turn" else 0
        elif verdict == "key_full":
            move(unit, task_key, "blocked", now)
            claimed.more = True
        elif verdict == "new":
            claimed.more = True
    cut_off = bool(claimed.tasks) and claim_signature(command) in unit.cut_off
    claimed.more = claimed.more or bool(queue) or cut_off
    if claimed.tasks:
        answer: _Answer = [(one.lease.run_no, one.lease.k, one.lease.epoch) for one in claimed.tasks]
        until = now + command.lease_ms
        unit.requests.put(key, Request(*key, "", msgspec.json.encode(answer).decode(), until))
    return claimed


def claim_key(command: Claim) -> tuple[str, str]:
    """Under which request a claim is remembered."""
    return command.scope or "*", "claim:" + hashlib.sha256(command.request.encode()).hexdigest()


def _check_claim(unit: Unit, command: Claim) -> None:
    check.lease(command.worker, command.lease_ms, command.request)
    check.name("via", command.via, empty=True)
    check.whole("limit", command.limit, 1, unit.settings.claim_limit)


def _queue(unit: Unit, command: Claim) -> deque[TaskKey]:
    """The batch's candidates for claims like this one, in the order in which they are leased; made once a batch.

    One of each scope in turn. Within a scope the lowest priority number first, and of equal ones one of each flow,
    workflow or function (`requires`) in turn, each by `order`: a thousand runs of one hold up no other.
    """
    signature = claim_signature(command)
    queue = unit.queues.get(signature)
    if queue is None:
        tasks = [unit.tasks.rows[key] for key in unit.candidates.get(signature, ())]
        chance = unit_interval(command.request)
        tasks.sort(key=lambda task: (task.order, task.run_no, task.k))
        scopes = {
            scope: [
                task
                for _, equal in sorted(_by(mine, "priority").items())
                for task in _in_turn(_by(equal, "requires"), chance)
            ]
            for scope, mine in _by(tasks, "scope").items()
        }
        turns = _in_turn(scopes, chance)
        queue = unit.queues[signature] = deque((task.run_no, task.k) for task in turns)
    return queue


def _by(tasks: list[Task], field: str) -> dict[Any, list[Task]]:
    groups: dict[Any, list[Task]] = {}
    for task in tasks:
        groups.setdefault(getattr(task, field), []).append(task)
    return groups


def _in_turn(groups: dict[Any, list[Task]], chance: float) -> list[Task]:
    """One of each group in turn, where chance (out of the claimer's secret) says which is first.

    Callers that take turns would fall into step with a rotation, and one group would never be first.
    """
    if len(groups) == 1:
        return next(iter(groups.values()))
    names = sorted(groups)
    turn = int(chance * len(names))
    rows = zip_longest(*(groups[name] for name in names[turn:] + names[:turn]))
    return [task for row in rows for task in row if task is not None]


def _again(unit: Unit, command: Claim, before: Request, now: int) -> Claimed:
    """The answer of a claim that came before: the leases of it that are still live."""
    claimed = Claimed([], now)
    for run_no, k, epoch in msgspec.json.decode(before.reply, type=_Answer):
        task = unit.tasks.get((run_no, k))
        if task is not None and task.state == "leased" and task.epoch == epoch:
            token = lease_token(command.request, run_no, k, epoch)
            claimed.tasks.append(_leased(unit, task, Lease(run_no, k, epoch, token), now))
    return claimed


def leased_by(unit: Unit, key: TaskKey, secret: str, now: int) -> Leased | None:
    """The live lease of a task, for the one who took it with this secret and whose answer was lost."""
    task = unit.tasks.get(key)
    if task is None or task.state != "leased":
        return None
    token = lease_token(secret, *key, task.epoch)
    return _leased(unit, task, Lease(*key, task.epoch, token), now) if task.token_hash == token_hash(token) else None


def grant(
    unit: Unit, key: TaskKey, worker: str, lease_ms: int, secret: str, version: str, now: int, *, via: str = ""
) -> Leased:
    """Leases a ready task: the next epoch, the next attempt, an entry."""
    take(unit, unit.tasks.rows[key], now)
    task = move(unit, key, "leased", now)
    run_no, k = key
    task.epoch += 1
    task.attempt += 1
    task.write_no = 0
    task.worker, task.leased_at, task.lease_until = worker, now, now + lease_ms
    token = lease_token(secret, run_no, k, task.epoch)
    task.token_hash = token_hash(token)
    append(unit, run_no, AttemptStarted(k, task.kind, task.attempt, task.epoch, worker, version, via), now)
    return _leased(unit, task, Lease(run_no, k, task.epoch, token), now)


def _leased(unit: Unit, task: Task, lease: Lease, now: int) -> Leased:
    run = unit.runs.rows[task.run_no]
    leased = Leased(
        lease=lease,
        run=run,
        kind=task.kind,
        attempt=task.attempt,
        failures=task.failures,
        lease_until=task.lease_until or now,
        seen=run.head_seq,
        now=now,
        key=task.key,
        name=task.name,
        details=task.details,
        retry=task.retry,
        timeout_ms=task.timeout_ms,
        heartbeat_ms=task.heartbeat_ms,
        deadline=task.deadline,
        output_n=task.said,
    )
    _bring(unit, leased, "input", run.input)
    _bring(unit, leased, "args", task.args)
    if run.event_no is not None:
        unit.readings.append(Reading(leased, "event", "event", event_no=run.event_no))
    fresh = run.generation == 1 and run.wake_seq == 0 and task.epoch == 1
    if task.kind == "turn" and not fresh:
        unit.readings.append(Reading(leased, "journal", "journal", run.no, until=run.head_seq))
    return leased


def _bring(unit: Unit, leased: Leased, field: str, stored: str | None) -> None:
    if stored is not None and stored.startswith("@"):
        unit.readings.append(Reading(leased, field, "blob", leased.run.no, hash=stored[1:]))
    else:
        setattr(leased, field, stored)


def fence(unit: Unit, lease: Lease, n: int) -> tuple[Run, Task, bool]:
    """The run and task that a lease may write, and whether write `n` is a repeat of the last one.

    A stale epoch, a wrong token or a closed lease is refused before anything is read from the write.
    """
    task, run = unit.tasks.get((lease.run_no, lease.k)), unit.runs.get(lease.run_no)
    if task is None or run is None:
        raise errors.Unknown("no such task", hint="The run is past its retention, or the lease is of another store.")
    mine = is_of(task, lease)
    last = run.write_no if lease.k == run.turn else task.write_no
    if mine and n == last and n > 0:
        return run, task, True
    if not mine or task.state != "leased":
        raise gone(run, lease)
    if n != last + 1:
        raise errors.OutOfStep(f"write {n} of {run.id} follows write {last}", run_id=run.id, n=n, last=last)
    return run, task, False


def is_of(task: Task, lease: Lease) -> bool:
    """Whether a lease is the last one of a task: its epoch, and the token that was told with it."""
    return task.epoch == lease.epoch and task.token_hash == token_hash(lease.token)


def is_live(task: Task, lease: Lease) -> bool:
    """Whether a lease holds its task now (law 3)."""
    return task.state == "leased" and is_of(task, lease)


def gone(run: Run, lease: Lease) -> errors.StepwellError:
    """The refusal of a lease that is over."""
    if run.terminal:
        return errors.Ended(f"run {run.id} is {run.status}", run_id=run.id, status=run.status)
    return errors.Stale(f"the lease of {run.id}.{lease.k} with epoch {lease.epoch} is over", run_id=run.id)


def give_back(
    unit: Unit, task: Task, now: int, reason: str, next_at: int, *, error: msgspec.Raw | None = None, n: int = 0
) -> None:
    """Ends a lease, not its task: `attempt.ended`, and the task is ready again, or due at `next_at`."""
    key = (task.run_no, task.k)
    later = next_at > now
    body = AttemptEnded(task.k, task.kind, task.attempt, reason, next_at=next_at if later else None)
    if error is not None:
        body.error = error
    append(unit, task.run_no, body, now, n=n if task.k == unit.runs.rows[task.run_no].turn else 0)
    moved = move(unit, key, "due" if later else "ready", now)
    moved.write_no = n
    moved.due_at = next_at if later else None
    why = _beyond_repair(unit, unit.runs.rows[task.run_no], moved)
    if why is not None:
        hold(unit, unit.runs.rows[task.run_no], RunHeld("poison", by="kernel", diff=why), now)


def _beyond_repair(unit: Unit, run: Run, task: Task) -> str | None:
    """Why a task is not given to one more worker."""
    settings = unit.settings
    if task.lost >= settings.lost_leases:
        return f"{task.lost} leases in a row were lost without a trace"
    if run.head_seq >= settings.journal_entries:
        return f"the journal has {run.head_seq:,} entries, the limit is {settings.journal_entries:,}"
    return None


def answer(unit: Unit, lease: Lease) -> Done:
    """What a write that ends a lease answers, the first time and when it is repeated."""
    run, task = unit.runs.rows[lease.run_no], unit.tasks.rows[(lease.run_no, lease.k)]
    next_at = None if task.state == "done" else task.due_at
    return Done(task.state, run.status, next_at)


def _told_to_stop(run: Run, task: Task) -> bool:
    """An action that was leased after the cancel is part of the cleanup, and is left alone."""
    return run.cancel_at is not None and (task.kind != "action" or (task.leased_at or 0) <= run.cancel_at)


def no_further(run: Run, task: Task) -> bool:
    """Whether the end of this lease is the end of the run: a step that was asked to cancel is not tried again."""
    return task.kind == "step" and run.cancel_at is not None


def worth_writing(task: Task, lease_ms: int, now: int) -> bool:
    """Whether a heartbeat makes a lease so much longer that it is written."""
    return now + lease_ms - (task.lease_until or 0) > lease_ms // WORTH_WRITING


def _tells(unit: Unit, beat: Beat, one: Synced) -> bool:
    """Whether a heartbeat brings details that can be kept now; if not, its answer says so."""
    try:
        check.json(unit.settings, "details", beat.details)
    except errors.StepwellError as refusal:
        one.dropped = refusal.message
        return False
    one.untold = beat.details is not None and beat.lease.run_no in unit.looked_at
    return beat.details is not None and not one.untold


def sync(unit: Unit, command: Sync, now: int) -> Beats:
    """`Sync`: one answer for each lease; extends those that are live, and that no other lane has under its hands."""
    check.lease(command.worker, command.lease_ms, "sync")
    check.whole("the number of leases", len(command.beats), 0, unit.settings.claim_limit * 10)
    synced = []
    for beat in command.beats:
        lease = beat.lease
        one = Synced(lease.run_no, lease.k)
        synced.append(one)
        task, run = unit.tasks.get((lease.run_no, lease.k)), unit.runs.get(lease.run_no)
        if task is None or run is None:
            one.error = "unknown"
            continue
        if not is_live(task, lease):
            one.error = gone(run, lease).code
            continue
        mine, until, tells = task, now + command.lease_ms, _tells(unit, beat, one)
        worth = beat.details is not None or worth_writing(task, command.lease_ms, now)
        if worth and lease.run_no not in unit.looked_at:
            mine = unit.tasks.edit((lease.run_no, lease.k))
            mine.lease_until = max(mine.lease_until or 0, until)
            mine.details = beat.details if tells else mine.details
        one.lease_until, one.cancel = mine.lease_until or now, _told_to_stop(run, mine)
        if task.kind == "turn" and run.wake_seq > beat.seen:
            unit.readings.append(Reading(one, "missed", "missed", run.no, beat.seen, run.head_seq + 1))
    return Beats(synced, now)

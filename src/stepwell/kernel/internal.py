"""What the lane asks of itself: bounded commands over what the store's indexes found. Each may be run twice."""

import logging

import msgspec

from stepwell.kernel.callbacks import called_later
from stepwell.kernel.calls import USER_MS, Away
from stepwell.kernel.control import request_cancel, take_signal
from stepwell.kernel.holds import hold
from stepwell.kernel.journal import deliver, fire
from stepwell.kernel.leases import give_back, no_further
from stepwell.kernel.runs import end
from stepwell.kernel.tasks import lost_at, move, outlived
from stepwell.kernel.unit import Unit
from stepwell.kernel.writes import fail_action
from stepwell.model.commands import Bury, Deliver, Fire, Promote, Prune, Sweep, Worked
from stepwell.model.entries import ChildEnded, RunCanceled, RunFailed, RunHeld, SignalReceived, decode_body, raw
from stepwell.model.errors import Conflict, Outdated
from stepwell.model.rows import Message, Run, Task

#: The error of an action past its deadline.
LATE = raw('{"type":"StepTimeout","message":"the action is past its deadline"}')
log = logging.getLogger("stepwell.kernel")


def sweep(unit: Unit, command: Sweep, now: int) -> Worked:
    """`Sweep`: actions past their deadline, expired leases, cancels past their grace, runs past their deadline."""
    work = unit.work
    count = 0
    for key in work.late:
        task = unit.tasks.get(key)
        if task is not None and task.state != "done" and task.deadline is not None and task.deadline <= now:
            if not outlived(unit, key, now):
                move(unit, key, "done", now)
                fail_action(unit, task, LATE, now)
            count += 1
    for key in work.expired:
        task = unit.tasks.get(key)
        if task is not None and task.state == "leased" and (task.lease_until or 0) < now:
            _expire(unit, key, now)
            count += 1
    for number in work.overdue:
        if count and unit.calls.spent_ms >= USER_MS:  # others spend it in every batch, so there is one all the same
            return Worked(count, more=True)
        run = unit.runs.get(number)
        if run is not None and not run.terminal:
            count += _overdue(unit, run, now)
    return Worked(count, count >= command.limit)


def bury(unit: Unit, command: Bury, now: int) -> Worked:
    """`Bury`: what a dead worker held ends as expired, before its time. Again: nothing is left to end.

    A step of a flow is a process of its own, which may outlive its worker until its lease ends (flows/executors/guard).
    """
    found = unit.work.dead.get(command.worker, ())
    count = 0
    for key in found:
        task = unit.tasks.get(key)
        if task is not None and task.state == "leased" and task.worker == command.worker:
            _expire(unit, key, now)
            count += 1
    return Worked(count, len(found) >= command.limit)


def _expire(unit: Unit, key: tuple[int, int], now: int) -> None:
    if outlived(unit, key, now):
        return
    task = unit.tasks.edit(key)
    run = unit.runs.rows[key[0]]
    if no_further(run, task):
        end(unit, run.no, RunCanceled(by="kernel", reason="its worker was lost after it was asked to cancel"), now)
        return
    wrote = task.kind == "turn" and run.write_no > 0
    task.lost = 1 if wrote else task.lost + 1
    give_back(unit, task, now, "expired", lost_at(task, now))


def heard_cancel(run: Run, task: Task) -> int | None:
    """Since when at the latest the code of a run that was asked to end knows of it; None while it may not.

    A body that rests after it was asked has seen it: its clean-up waits for something.
    """
    if task.state == "leased":
        return task.leased_at or 0
    rests = task.state == "parked" or (task.state == "due" and task.due_key is not None)
    return run.updated_at if rests else None


def _overdue(unit: Unit, run: Run, now: int) -> bool:
    """Ends a run past its deadline, or past the grace of its cancel; answers whether it was."""
    if run.deadline is not None and run.deadline <= now:
        end(unit, run.no, RunFailed(raw('{"type":"Timeout","message":"the run is past its deadline"}')), now)
        return True
    task = unit.tasks.rows[(run.no, run.turn)]
    grace = unit.settings.cancel_grace_ms + (unit.settings.kill_grace_ms if run.kind == "step" else 0)
    heard = heard_cancel(run, task)
    if run.cancel_at is None or heard is None or max(run.cancel_at, heard) + grace > now:
        return False
    end(unit, run.no, RunCanceled(by="kernel", reason="past the grace of its cancel", terminated=True), now)
    return True


def fire_due(unit: Unit, command: Fire, now: int) -> Worked:
    """`Fire`: a parked turn gets its timer; what backs off or was delayed gets ready."""
    for key in unit.work.due:
        task = unit.tasks.get(key)
        if task is None or task.state != "due" or task.due_at is None or task.due_at > now or outlived(unit, key, now):
            continue
        if task.due_key is not None:
            fire(unit, key[0], now)
        else:
            move(unit, key, "ready", now)
    return Worked(len(unit.work.due), len(unit.work.due) >= command.limit)


def deliver_messages(unit: Unit, command: Deliver, now: int) -> Worked:
    """`Deliver`: append and delete in one commit, first in first out for each receiver.

    There is more to do only where something was done: what stays is for another time, not for now.
    """
    done, count = set(unit.delivered), 0
    for message in unit.work.messages:
        if count and unit.calls.spent_ms >= USER_MS:
            return Worked(count, more=True)
        if message.no not in done and _deliver_one(unit, message, now):
            unit.delivered.append(message.no)
            count += 1
    full = len(unit.work.messages) >= command.limit
    return Worked(count, full and count > 0, soon=unit.work.left_out)


def _deliver_one(unit: Unit, message: Message, now: int) -> bool:
    """Hands a message over. One that cannot be holds its receiver, so that it holds up nobody behind it.

    A callback whose events were matched on manifests of the past stays, for another try.
    """
    run = unit.runs.get(message.to_no)
    mark = unit.mark()
    try:
        if run is not None:
            _hand_over(unit, run, message, now)
    except Away:
        raise
    except Outdated:
        unit.rollback(mark)
        return False
    except Exception:
        unit.rollback(mark)
        log.exception("message %d of run %d cannot be handed over", message.no, message.from_no)
        if run is not None and run.hold is None and not run.terminal:
            why = f"the message {message.kind} of run {message.from_no} could not be taken in"
            hold(unit, run, RunHeld("poison", by="kernel", diff=why), now)
    return True


def _hand_over(unit: Unit, run: Run, message: Message, now: int) -> None:
    if message.kind == "callback":
        failed = called_later(unit, message, now)
        if failed is not None:
            log.error("callback %s of run %s failed: %s", message.key, run.id, failed)
        return
    if run.terminal:
        if run.next_no is not None and message.kind in ("signal", "cancel"):
            unit.sent.append(msgspec.structs.replace(message, no=0, to_no=run.next_no))
        return
    if message.kind == "cancel":
        told = msgspec.json.decode(message.data, type=dict[str, str])
        if "by" in told or message.from_no == run.parent_no:
            request_cancel(unit, run, told.get("by", "parent"), told.get("reason", ""), now)
    elif message.kind == "signal":
        _signal(unit, run, msgspec.json.decode(message.data, type=SignalReceived), now)
    elif message.kind == "child.ended":
        generation, _, key = (message.key or "0:").partition(":")
        if int(generation) == run.generation:
            deliver(unit, run.no, decode_body(ChildEnded.kind, message.data), now, key=key)


def _signal(unit: Unit, run: Run, body: SignalReceived, now: int) -> None:
    try:
        take_signal(unit, run, body, now)
    except Conflict as conflict:  # two that did not know of each other sent it at once: the first one counts
        log.warning("a signal of run %s is dropped: %s", body.by, conflict)


def promote(unit: Unit, command: Promote, now: int) -> Worked:
    """`Promote`: blocked tasks of a key, as many as it has free slots, in their old order."""
    free: dict[tuple[str, str, str | None], int] = {}
    moved = 0
    for key in unit.work.blocked:
        task = unit.tasks.get(key)
        if task is None or task.state != "blocked":
            continue
        pool = unit.pools.get((task.scope, task.pool))
        slot_key = (task.scope, task.pool, task.pool_key)
        if pool is not None and pool.key_limit is not None:
            left = free.setdefault(slot_key, pool.key_limit - (unit.used.get(slot_key) or 0))
            if left <= 0:
                continue
            free[slot_key] = left - 1
        order = task.order
        move(unit, key, "ready", now).order = order
        moved += 1
    return Worked(moved, left=unit.work.blocked_left, after=unit.work.promoted_to)


def prune(unit: Unit, command: Prune, now: int) -> Worked:
    """`Prune`: whole ended runs, events without runs, requests and changes past their retention."""
    work = unit.work
    gone: set[str] = set()
    staying: set[int | None] = set()
    for number in work.prune_runs:
        run = unit.runs.get(number)
        if run is None or not run.terminal:  # it was restarted in this very batch
            staying.add(None if run is None else run.event_no)
            continue
        gone.add(run.id)
        unit.pruned_runs.append(number)
        unit.ids.drop((run.scope, run.id))
        floor = unit.floors.get(run.scope) or 0
        unit.floors.put(run.scope, max(floor, run.ended_at or 0))
    for event in work.prune_events:
        found = unit.events.get(event)
        if found is not None and found.no not in staying and gone.issuperset(unit.event_runs.get(found.no) or ()):
            unit.events.drop(event)
    for request in work.prune_requests:
        unit.requests.drop(request)
    unit.pruned_changes = work.prune_changes
    count = len(unit.pruned_runs) + len(work.prune_events) + len(work.prune_requests)
    return Worked(count, count > 0 or work.prune_changes > 0)

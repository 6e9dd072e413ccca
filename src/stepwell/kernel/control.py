"""What anyone allowed may do to a run from outside: signal, cancel, terminate, hold, release."""

import hashlib

import msgspec

from stepwell.kernel import check
from stepwell.kernel.journal import append, deliver
from stepwell.kernel.runs import end, known, state_of
from stepwell.kernel.tasks import move
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Cancel, HoldRun, ReleaseRun, RunState, Signal, Signaled, Terminate
from stepwell.model.entries import CancelRequested, RunCanceled, RunHeld, RunReleased, SignalReceived, raw
from stepwell.model.rows import Request, Run

HOUR_MS = 3_600_000


def signal(unit: Unit, command: Signal, now: int) -> Signaled:
    """`Signal`: an entry the moment it is accepted; the same dedup key again is the same signal."""
    check.name("signal", command.name)
    check.payload(unit.settings, "payload", command.payload)
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        if run.next_no is not None and (onward := unit.runs.get(run.next_no)) is not None:
            return Signaled(0, moved_to=onward.id)
        raise _ended(run)
    key = dedup_key(command)
    hashed = hashlib.sha256(f"{command.name}\0{command.payload}".encode()).hexdigest()
    if key is not None and (before := unit.requests.get(key)) is not None:
        if before.body_hash != hashed:
            raise errors.Conflict(f"signal {command.dedup!r} of run {run.id} came before with another payload")
        return Signaled(msgspec.json.decode(before.reply, type=int))
    check.room(unit.settings, run, 1, len(command.payload))
    body = SignalReceived(command.name, raw(command.payload), dedup=command.dedup, by=command.by)
    entry = deliver(unit, run.no, body, now)
    if key is not None:
        until = now + unit.settings.request_retention_h * HOUR_MS
        unit.requests.put(key, Request(*key, hashed, str(entry.seq), until))
    return Signaled(entry.seq)


def dedup_key(command: Signal) -> tuple[str, str] | None:
    """Under which request a signal with a dedup key is remembered."""
    if command.dedup is None:
        return None
    check.run_id(command.dedup)
    digest = hashlib.sha256(f"{command.run_id}\0{command.dedup}".encode()).hexdigest()
    return command.scope, "signal:" + digest


def cancel(unit: Unit, command: Cancel, now: int) -> RunState:
    """`Cancel`: asks once. Ends at once what no code has to be told of."""
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        raise _ended(run)
    request_cancel(unit, run, command.by, command.reason, now)
    return state_of(unit.runs.rows[run.no])


def request_cancel(unit: Unit, run: Run, by: str, reason: str, now: int) -> None:
    """A cancel is sticky: the entry is written once."""
    if run.cancel_at is not None:
        return
    if run.hold == "paused":
        unhold(unit, run, by, now)
    deliver(unit, run.no, CancelRequested(by, reason), now)
    run = unit.runs.rows[run.no]
    turn = unit.tasks.rows[(run.no, run.turn)]
    nobody_to_tell = turn.state != "leased" and (run.kind == "step" or run.epoch == 0)
    if nobody_to_tell or run.hold is not None:
        end(unit, run.no, RunCanceled(by, reason), now)


def terminate(unit: Unit, command: Terminate, now: int) -> RunState:
    """`Terminate`: writes the end itself."""
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        raise _ended(run)
    end(unit, run.no, RunCanceled(command.by, command.reason, terminated=True), now)
    return state_of(unit.runs.rows[run.no])


def hold_run(unit: Unit, command: HoldRun, now: int) -> RunState:
    """`HoldRun`: all open tasks stop; a lease of them is over."""
    if command.reason not in ("paused", "mismatch", "stalled", "poison"):
        raise errors.Invalid(f"hold reason {command.reason!r}", hint="One of paused, mismatch, stalled, poison.")
    check.payload(unit.settings, "diff", command.diff)
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        raise _ended(run)
    if run.hold is None:
        hold(unit, run, RunHeld(command.reason, command.by, command.diff), now)
    return state_of(unit.runs.rows[run.no])


def hold(unit: Unit, run: Run, body: RunHeld, now: int) -> None:
    """Holds every open task of a run and says why."""
    for k in {run.turn, *unit.open_tasks.get(run.no, ())}:
        task = unit.tasks.get((run.no, k))
        if task is None or task.state in ("done", "held"):
            continue
        due_at = task.due_at if task.kind == "action" else None
        move(unit, (run.no, k), "held", now).due_at = due_at
    append(unit, run.no, body, now)


def release_run(unit: Unit, command: ReleaseRun, now: int) -> RunState:
    """`ReleaseRun`: the turn is ready again and looks for itself what it waits for."""
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        raise _ended(run)
    if run.hold is not None:
        unhold(unit, run, command.by, now)
    return state_of(unit.runs.rows[run.no])


def unhold(unit: Unit, run: Run, by: str, now: int) -> None:
    """Takes every task of a held run back into play."""
    for k in {run.turn, *unit.open_tasks.get(run.no, ())}:
        task = unit.tasks.get((run.no, k))
        if task is None or task.state != "held":
            continue
        due_at = task.due_at
        later = due_at is not None and due_at > now
        moved = move(unit, (run.no, k), "due" if later else "ready", now)
        moved.due_at = due_at if later else None
        moved.lost = 0
    append(unit, run.no, RunReleased(by), now)


def _ended(run: Run) -> errors.Ended:
    return errors.Ended(f"run {run.id} is {run.status}", run_id=run.id, status=run.status)

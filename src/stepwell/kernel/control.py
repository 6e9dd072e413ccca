"""What anyone allowed may do to a run from outside: signal, cancel, terminate, hold, release."""

from stepwell.kernel import check
from stepwell.kernel.dedup import came_before, remember, signal_hash
from stepwell.kernel.holds import hold, unhold
from stepwell.kernel.journal import deliver
from stepwell.kernel.runs import end, known, state_of
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Cancel, HoldRun, ReleaseRun, RunState, Signal, Signaled, Terminate
from stepwell.model.entries import CancelRequested, RunCanceled, RunHeld, SignalReceived, raw
from stepwell.model.rows import Run


def signal(unit: Unit, command: Signal, now: int) -> Signaled:
    """`Signal`: an entry the moment it is accepted; the same dedup key again is the same signal."""
    check.name("signal", command.name)
    check.json(unit.settings, "payload", command.payload)
    run = known(unit, command.scope, command.run_id)
    body = SignalReceived(command.name, raw(command.payload), dedup=command.dedup, by=command.by)
    seq = _before(unit, run, body)
    if seq is not None:
        return Signaled(seq)
    if run.terminal:
        if run.next_no is not None and (onward := unit.runs.get(run.next_no)) is not None:
            return Signaled(0, moved_to=onward.id)
        raise _ended(run)
    return Signaled(_take(unit, run, body, now))


def take_signal(unit: Unit, run: Run, body: SignalReceived, now: int) -> None:
    """A signal of another run. Raises `TooLarge` if there is no room for it, `Conflict` as `Signal` does."""
    if _before(unit, run, body) is None:
        _take(unit, run, body, now)


def _before(unit: Unit, run: Run, body: SignalReceived) -> int | None:
    if body.dedup is None:
        return None
    return came_before(unit, run, body.dedup, signal_hash(body.name, bytes(body.payload).decode()))


def _take(unit: Unit, run: Run, body: SignalReceived, now: int) -> int:
    check.room(unit.settings, run, 1, len(bytes(body.payload)))
    entry = deliver(unit, run.no, body, now)
    if body.dedup is not None:
        remember(unit, run, body.dedup, signal_hash(body.name, bytes(body.payload).decode()), entry.seq, now)
    return entry.seq


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
        check.room(unit.settings, run, 2, 0)
        hold(unit, run, RunHeld(command.reason, command.by, command.diff), now)
    return state_of(unit.runs.rows[run.no])


def release_run(unit: Unit, command: ReleaseRun, now: int) -> RunState:
    """`ReleaseRun`: the turn is ready again and looks for itself what it waits for."""
    run = known(unit, command.scope, command.run_id)
    if run.terminal:
        raise _ended(run)
    if run.hold is not None:
        unhold(unit, run, command.by, now)
    return state_of(unit.runs.rows[run.no])


def _ended(run: Run) -> errors.Ended:
    return errors.Ended(f"run {run.id} is {run.status}", run_id=run.id, status=run.status)

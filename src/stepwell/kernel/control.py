"""What anyone allowed may do to a run from outside: signal, cancel, terminate, hold, release."""

import msgspec

from stepwell.kernel import check
from stepwell.kernel.dedup import dedup_key, remember, signal_hash
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
    key = None if command.dedup is None else dedup_key(command.scope, command.run_id, command.dedup)
    seq = None if key is None else _came_before(unit, command, run, key)
    if seq is not None:
        return Signaled(seq)
    if run.terminal:
        if run.next_no is not None and (onward := unit.runs.get(run.next_no)) is not None:
            return Signaled(0, moved_to=onward.id)
        raise _ended(run)
    check.room(unit.settings, run, 1, len(command.payload.encode()))
    body = SignalReceived(command.name, raw(command.payload), dedup=command.dedup, by=command.by)
    entry = deliver(unit, run.no, body, now)
    if command.dedup is not None:
        remember(unit, run, command.dedup, signal_hash(command.name, command.payload), entry.seq, now)
    return Signaled(entry.seq)


def _came_before(unit: Unit, command: Signal, run: Run, key: tuple[str, str]) -> int | None:
    """The entry of the same signal, if the run's present journal has it."""
    before = unit.requests.get(key)
    if before is None:
        return None
    generation, seq = msgspec.json.decode(before.reply, type=tuple[int, int])
    if generation != run.generation and seq > run.kept_seq:
        return None
    if before.body_hash != signal_hash(command.name, command.payload):
        raise errors.Conflict(f"signal {command.dedup!r} of run {run.id} came before with another payload")
    return int(seq)


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

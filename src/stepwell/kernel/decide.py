"""`decide`: the one door to the rules. A refusal, or an unforeseen exception, changes nothing."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stepwell.kernel import adopt, again, control, events, internal, invoke, leases, output, pools, runs, writes
from stepwell.kernel.calls import USER_MS, Away, Busy, Postponed
from stepwell.kernel.needs import Names, named
from stepwell.kernel.unit import Reading, Unit
from stepwell.model import commands as c
from stepwell.model.errors import Internal, Invalid, StepwellError, Unseen

log = logging.getLogger("stepwell.kernel")

Rule = Callable[[Unit, Any, int], Any]

RULES: dict[type[c.Command], Rule] = {
    c.AcceptEvent: events.accept_event,
    c.AdoptEvent: adopt.adopt_event,
    c.ReplayEvent: events.replay_event,
    c.SyncManifests: events.sync_manifests,
    c.StartRun: runs.start_run,
    c.Restart: again.restart,
    c.Claim: leases.claim,
    c.Release: writes.release,
    c.Sync: leases.sync,
    c.Record: writes.record,
    c.Mutate: writes.mutate,
    c.Invoke: invoke.invoke,
    c.Park: writes.park,
    c.Finish: writes.finish,
    c.Fail: writes.fail,
    c.Say: output.say,
    c.Signal: control.signal,
    c.Cancel: control.cancel,
    c.Terminate: control.terminate,
    c.HoldRun: control.hold_run,
    c.ReleaseRun: control.release_run,
    c.SetPool: pools.set_pool,
    c.Sweep: internal.sweep,
    c.Bury: internal.bury,
    c.Fire: internal.fire_due,
    c.Deliver: internal.deliver_messages,
    c.Promote: internal.promote,
    c.Prune: internal.prune,
}


#: They stop by themselves when a batch has run enough of users' code.
INTERNAL = (c.Sweep, c.Deliver)


def decide_inside(unit: Unit, command: c.Command, now: int) -> Any:
    """The reply of a command that is part of another one: it commits and is undone with it. Raises its refusal."""
    unit.bring(command)
    mark = unit.mark()
    try:
        return RULES[type(command)](unit, command, now)
    except Away:
        raise
    except Exception:
        unit.rollback(mark)
        raise


def decide(unit: Unit, command: c.Command, now: int) -> Any:
    """The reply of one command, or the error that refuses it; the unit has the changes, or none.

    `Postponed` instead of a reply: the command calls a mutation, and this batch has run enough of them, or runs none.
    """
    mark, calls = unit.mark(), unit.calls
    calls.full = (calls.elsewhere or calls.spent_ms >= USER_MS) and type(command) not in INTERNAL
    try:
        reply = RULES[type(command)](unit, command, now)
        if calls.open:
            calls.keep()
    except Away:
        raise
    except Postponed as later:
        unit.rollback(mark)
        return later
    except StepwellError as refusal:
        unit.rollback(mark)
        if isinstance(refusal, Unseen):
            _bring_unseen(unit, refusal)
        return refusal
    except Exception as surprise:
        unit.rollback(mark)
        log.exception("command %s raised", type(command).__name__)
        return Internal(f"{type(command).__name__}: {type(surprise).__name__}: {surprise}")
    else:
        return reply


def decide_all(
    unit: Unit,
    batch: Sequence[c.Command],
    now: int,
    refused: Mapping[int, Exception] | None = None,
    behind: Names = frozenset(),
) -> list[Any]:
    """The replies of a batch, in order. `refused` by position: what could not be loaded for, and why.

    What names a run that another lane has is postponed (`Busy`), and so is what names a run that something postponed
    before it names, here or already (`behind`): so the order stays.
    """
    no, late = refused or {}, unit.busy | behind
    replies: list[Any] = []
    for position, command in enumerate(batch):
        if position in no:
            reply: Any = refusal(command, no[position])
        elif late and not late.isdisjoint(named(command)):
            reply = Busy()
        else:
            reply = decide(unit, command, now)
        if isinstance(reply, Postponed):
            late.update(_both_ways(unit, named(command)))
        replies.append(reply)
    return replies


def _both_ways(unit: Unit, names: Names) -> Iterator[int | tuple[str, str]]:
    """The names of runs, and the other way to name each."""
    for name in names:
        yield name
        number = name if isinstance(name, int) else unit.ids.get(name)
        run = None if number is None else unit.runs.get(number)
        if run is not None:
            yield from (run.no, (run.scope, run.id))


def refusal(command: c.Command, error: Exception) -> StepwellError:
    """What a command is told whose fields have types or values that nothing can be done with."""
    if isinstance(error, StepwellError):
        return error
    what = f"{type(command).__name__}: {type(error).__name__}: {error}"
    return Invalid(what, hint="Check the types of the command's fields.")


def _bring_unseen(unit: Unit, refusal: Unseen) -> None:
    """A refused park brings the entries that it has not seen."""
    refusal.entries = []
    run_no, seen, until = (refusal.fields.pop(name) for name in ("run_no", "seen", "until"))
    unit.readings.append(Reading(refusal, "entries", "missed", run_no, seen, until))

"""What a worker writes under its lease: numbered, repeatable, never refused because somebody else wrote (KERNEL)."""

from msgspec import UNSET, Raw

from stepwell.kernel import check
from stepwell.kernel.calls import Call
from stepwell.kernel.dedup import remember, signal_hash
from stepwell.kernel.drafts import write
from stepwell.kernel.events import emit
from stepwell.kernel.holds import hold
from stepwell.kernel.journal import append, deliver, fire
from stepwell.kernel.leases import answer, fence, give_back, no_further
from stepwell.kernel.runs import create, end
from stepwell.kernel.tasks import move, retry_at
from stepwell.kernel.unit import Reading, Unit
from stepwell.model import errors
from stepwell.model.commands import (
    Canceled,
    Completed,
    Continued,
    Done,
    Draft,
    Fail,
    Finish,
    Mutate,
    Park,
    Record,
    Recorded,
    Release,
)
from stepwell.model.entries import (
    PAYLOADS,
    ActionCompleted,
    ActionFailed,
    CancelRequested,
    RunCanceled,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailed,
    RunHeld,
    RunParked,
    SignalReceived,
    StepCompleted,
    StepFailed,
    raw,
    text_of,
    with_attempts,
)
from stepwell.model.rows import Run, Task

#: The longest that a released task may be kept back: a week.
MAX_DELAY_MS = 7 * 86_400_000
#: How many names of unread signals an entry tells.
MAX_UNREAD = 100


def record(unit: Unit, command: Record, now: int) -> Recorded:
    """`Record`: appends a turn's entries; tasks and children that they name come to be with them."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if task.kind != "turn":
        raise errors.Invalid(
            "only a workflow's turn records entries", hint="A step or action ends with Finish or Fail."
        )
    if not command.entries:
        raise errors.Invalid("a write without entries", hint="Write at least one entry.")
    if repeat:
        return recorded_again(unit, run, len(command.entries), command.seen, now)
    _check_drafts(unit, run, command.entries)
    first, wake_seq = run.head_seq + 1, run.wake_seq
    other = False
    for draft in command.entries:
        other = write(unit, run.no, draft, now, command.n) or other
    run = unit.runs.rows[run.no]
    recorded = Recorded(first, run.head_seq, now, run.updated_at)
    if wake_seq > command.seen:
        _bring_missed(unit, run, recorded, command.seen)
    if other:
        bring_own(unit, run, recorded)
    return recorded


def recorded_again(unit: Unit, run: Run, count: int, seen: int, now: int) -> Recorded:
    """The answer of the last write, which wrote `count` entries, when it is repeated."""
    recorded = Recorded(run.write_seq, run.write_seq + count - 1, now, run.updated_at)
    _bring_missed(unit, run, recorded, seen)
    bring_own(unit, run, recorded)
    unit.readings.append(Reading(recorded, "at", "at", run.no, until=run.write_seq))
    return recorded


def _bring_missed(unit: Unit, run: Run, recorded: Recorded, seen: int) -> None:
    if seen + 1 < recorded.first:
        unit.readings.append(Reading(recorded, "missed", "missed", run.no, seen, recorded.first))


def bring_own(unit: Unit, run: Run, recorded: Recorded) -> None:
    """Answers with the entries of a write as they stand."""
    unit.readings.append(Reading(recorded, "own", "own", run.no, recorded.first - 1, recorded.head + 1))


def _check_drafts(unit: Unit, run: Run, drafts: tuple[Draft, ...]) -> None:
    size = 0
    for draft in drafts:
        body = draft.body
        if not body.recordable:
            raise errors.Invalid(f"a worker may not write {body.kind!r}", kind=body.kind)
        if draft.key is not None:
            check.text("key", draft.key, 1_024)
        for name in PAYLOADS[type(body)]:
            text = text_of(getattr(body, name))
            check.json(unit.settings, name, text)
            size += check.size_of(name, text or "")
        size += 256
    check.room(unit.settings, run, len(drafts), size)


def mutate(unit: Unit, command: Mutate, now: int) -> Recorded:
    """`Mutate`: runs the function in this transaction; its result, or its error, is recorded in the same commit."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if task.kind != "turn":
        raise errors.Invalid("only a workflow's turn runs mutations")
    if repeat:
        return recorded_again(unit, run, 1, command.seen, now)
    check.json(unit.settings, "args", command.args)
    check.text("key", command.key, 1_024)
    check.room(unit.settings, run, 1, unit.settings.payload_bytes)
    called = unit.call(Call(command.function, command.args, run.scope, by=run.id, run_no=run.no), now)
    body = StepCompleted(raw(called.text)) if called.done else StepFailed(raw(called.text))
    entry = append(unit, run.no, body, now, key=command.key, n=command.n)
    recorded = Recorded(entry.seq, entry.seq, now, entry.at)
    _bring_missed(unit, run, recorded, command.seen)
    bring_own(unit, run, recorded)
    return recorded


def park(unit: Unit, command: Park, now: int) -> Done:
    """`Park`: refused as `unseen` while there is something to deliver, so there is no moment between."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if repeat:
        return answer(unit, command.lease)
    if task.kind != "turn":
        raise errors.Invalid("only a workflow's turn parks")
    if command.seen < run.wake_seq:
        raise _unseen(run, command.seen)
    waits = "".join(command.waits)
    check.payload(unit.settings, "waits", waits)
    _check_unread(command.unread)
    check.room(unit.settings, run, 2, check.size_of("waits", waits))
    check.time_ms("due_at", command.due_at)
    if command.due_key is not None:
        check.text("due_key", command.due_key, 1_024)
    key = (run.no, task.k)
    body = RunParked(task.attempt, list(command.waits), command.due_at, command.due_key, list(command.unread))
    append(unit, run.no, body, now, n=command.n)
    timed = command.due_at is not None and command.due_key is not None
    moved = move(unit, key, "due" if timed else "parked", now)
    moved.lost = 0
    if timed:
        moved.due_at, moved.due_key = command.due_at, command.due_key
        fire(unit, run.no, now)
    elif not any(_can_happen(run, wait) for wait in command.waits):
        move(unit, key, "held", now)
        append(unit, run.no, RunHeld("stalled", diff="the workflow waits for nothing that can happen"), now)
    return answer(unit, command.lease)


def _check_unread(names: tuple[str, ...]) -> None:
    check.whole("the number of unread signals", len(names), 0, MAX_UNREAD)
    for name in names:
        check.name("unread", name)


def _can_happen(run: Run, wait: str) -> bool:
    """Whether a parked run will hear of `wait` one day; a timer without its time never fires."""
    left = {"timer": 0, "action": run.open_actions, "child": run.open_children}
    return left.get(wait.partition(":")[0], 1) > 0


def _unseen(run: Run, seen: int) -> errors.Unseen:
    message = f"run {run.id} has entries after {seen}"
    return errors.Unseen(message, run_id=run.id, run_no=run.no, seen=seen, until=run.head_seq + 1)


def finish(unit: Unit, command: Finish, now: int) -> Done:
    """`Finish`: the end of a run, or of an action."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if repeat:
        return answer(unit, command.lease)
    outcome = command.outcome
    _check_unread(command.unread)
    if isinstance(outcome, Continued) and task.kind != "turn":
        raise errors.Invalid("only a workflow's turn continues as a new run")
    if isinstance(outcome, Continued):
        _continue(unit, run, outcome, now, command.n)
    elif task.kind == "action":
        _finish_action(unit, task, outcome, now)
    elif isinstance(outcome, Completed):
        check.json(unit.settings, "result", outcome.result)
        sent = [one.event_id for one in emit(unit, run, command.sends, now)]
        body = RunCompleted(raw(outcome.result), outcome.result_status, sent, list(command.unread))
        end(unit, run.no, body, now, n=command.n)
    else:
        canceled = RunCanceled(by="worker", reason=outcome.reason, unread=list(command.unread))
        end(unit, run.no, canceled, now, n=command.n)
    return answer(unit, command.lease)


def _finish_action(unit: Unit, task: Task, outcome: Completed | Canceled, now: int) -> None:
    key = (task.run_no, task.k)
    move(unit, key, "done", now).write_no = 1
    if isinstance(outcome, Completed):
        check.json(unit.settings, "result", outcome.result)
        deliver(unit, task.run_no, ActionCompleted(task.k, raw(outcome.result)), now, key=task.key)
    else:
        fail_action(unit, task, raw('{"type":"Canceled","message":"the action was canceled"}'), now)


def fail_action(unit: Unit, task: Task, error: Raw, now: int) -> None:
    """Tells the run that an action failed for good, after how many attempts."""
    deliver(unit, task.run_no, ActionFailed(task.k, with_attempts(error, task.attempt)), now, key=task.key)


def _continue(unit: Unit, run: Run, outcome: Continued, now: int, n: int) -> None:
    if outcome.seen < run.wake_seq:
        raise _unseen(run, outcome.seen)
    if run.open_actions or run.open_children:
        raise errors.Open(
            f"run {run.id} has {run.open_actions} actions and {run.open_children} children open",
            hint="Await or cancel them before the run continues as a new one.",
        )
    check.run_id(outcome.id)
    check.name("name", outcome.name, empty=True)
    for signal in outcome.signals:
        check.name("signal", signal.name)
        check.json(unit.settings, "payload", signal.payload)
    size = sum(check.size_of("payload", one.payload) for one in outcome.signals)
    check.room(unit.settings, Run(0, "", outcome.id), len(outcome.signals), size)
    check.json(unit.settings, "input", outcome.input)
    if unit.run_by_id(run.scope, outcome.id) is not None:
        raise errors.Exists(f"run {outcome.id} exists", run_id=outcome.id)
    task = unit.tasks.rows[(run.no, run.turn)]
    made = RunCreated(
        run_kind="workflow",
        name=outcome.name or run.name,
        version=outcome.version,
        pool=task.pool,
        pool_key=task.pool_key,
        priority=task.priority,
        by=run.id,
        input=raw(outcome.input),
        depth=run.depth,
        root_no=run.root_no or run.no,
        continues=run.id,
        deadline=run.deadline,
        tags=UNSET if run.tags is None else raw(run.tags),
        callback=UNSET if run.callback is None else raw(run.callback),
    )
    made.parent_no, made.parent_key, made.parent_gen = run.parent_no, run.parent_key, run.parent_gen
    new = create(unit, run.scope, outcome.id, made, now, requires=outcome.requires or task.requires)
    for signal in outcome.signals:
        entry = append(unit, new.no, SignalReceived(signal.name, raw(signal.payload), dedup=signal.dedup), now)
        if signal.dedup is not None:
            remember(unit, new, signal.dedup, signal_hash(signal.name, signal.payload), entry.seq, now)
    if run.cancel_at is not None:
        append(unit, new.no, CancelRequested(by="kernel", reason="asked of the run that this one continues"), now)
    end(unit, run.no, RunContinued(outcome.id, new.no), now, n=n)


def release(unit: Unit, command: Release, now: int) -> Done:
    """`Release`: the attempt does not count as a failure, nor as a lost lease."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if not repeat and command.hold is not None:
        _hold(unit, run, task, command, now)
    elif not repeat and no_further(run, task):
        end(unit, run.no, RunCanceled(by="worker", reason="released after it was asked to cancel"), now, n=command.n)
    elif not repeat:
        check.whole("delay_ms", command.delay_ms, 0, MAX_DELAY_MS)
        if command.broken:
            unit.tasks.edit((run.no, task.k)).lost += 1
        give_back(unit, unit.tasks.rows[(run.no, task.k)], now, "released", now + command.delay_ms, n=command.n)
    return answer(unit, command.lease)


def _hold(unit: Unit, run: Run, task: Task, command: Release, now: int) -> None:
    """Holds a run that its worker cannot go on with. One that was asked to cancel ends: nobody would honour it."""
    reason = str(command.hold)
    if reason not in ("mismatch", "poison", "stalled") or task.kind == "action":
        hint = "A worker holds a step or a workflow's turn, with mismatch, poison or stalled."
        raise errors.Invalid(f"{reason!r} holds no {task.kind}", field="hold", hint=hint)
    check.payload(unit.settings, "diff", command.diff)
    if run.cancel_at is not None:
        canceled = RunCanceled(by="kernel", reason=f"held as {reason} after it was asked to cancel")
        end(unit, run.no, canceled, now, n=command.n)
    else:
        hold(unit, run, RunHeld(reason, task.worker or "", command.diff), now, n=command.n)


def fail(unit: Unit, command: Fail, now: int) -> Done:
    """`Fail`: the next attempt, with back-off, or the end."""
    run, task, repeat = fence(unit, command.lease, command.n)
    if repeat:
        return answer(unit, command.lease)
    check.json(unit.settings, "error", command.error)
    check.json(unit.settings, "result", command.result)
    _check_unread(command.unread)
    key, error = (run.no, task.k), raw(command.error)
    mine = unit.tasks.edit(key)
    mine.failures += 1
    mine.lost = 0
    next_at = retry_at(mine, now) if command.retry and run.cancel_at is None else None
    if next_at is not None:
        give_back(unit, mine, now, "failed", next_at, error=error, n=command.n)
    elif task.kind == "action":
        move(unit, key, "done", now).write_no = 1
        fail_action(unit, mine, error, now)
    else:
        sent = [one.event_id for one in emit(unit, run, command.sends, now)]
        body = RunFailed(error, result_status=command.result_status, next=sent, unread=list(command.unread))
        if command.result is not None:
            body.result = raw(command.result)
        end(unit, run.no, body, now, n=command.n)
    return answer(unit, command.lease)

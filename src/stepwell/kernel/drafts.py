"""What the entries of a `Record` bring about: tasks, runs, messages, events (source: KERNEL, who writes what when).

A rule answers whether it wrote something else than the draft. What cannot be done becomes `step.failed` of the draft's
key: the workflow hears of it like of any step, and the other entries of the write stand.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.kernel import check
from stepwell.kernel.dedup import came_before, signal_hash
from stepwell.kernel.events import emit
from stepwell.kernel.journal import append
from stepwell.kernel.runs import create, known
from stepwell.kernel.tasks import check_place, check_retry, move
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Draft
from stepwell.model.entries import (
    ActionCanceled,
    ActionScheduled,
    Body,
    CancelSent,
    ChildStarted,
    EventSent,
    PatchMarked,
    RunCreated,
    SignalReceived,
    SignalSent,
    StateSet,
    StepFailed,
    encode,
    raw,
    text_of,
)
from stepwell.model.rows import Message, Run, Task

Rule = Callable[[Unit, int, Any, Draft, int, int], bool]
#: What errors are called in a workflow, where they differ from here.
_TYPES = {"Unknown": "NotFound"}


def write(unit: Unit, run_no: int, draft: Draft, now: int, n: int) -> bool:
    """Writes one entry of a worker, and what comes with it; answers whether the entry is another than the given."""
    rule = _RULES.get(type(draft.body))
    if rule is None:
        append(unit, run_no, draft.body, now, key=draft.key, n=n)
        return False
    if not draft.key:
        raise errors.Invalid(f"{draft.body.kind} needs a key", field="key", hint="Give each call a key of its own.")
    return rule(unit, run_no, draft.body, draft, now, n)


def _schedule_action(unit: Unit, run_no: int, body: ActionScheduled, draft: Draft, now: int, n: int) -> bool:
    check.name("function", body.function)
    check_place(body.pool, body.pool_key, body.priority)
    check.time_ms("due_at", body.due_at)
    check.time_ms("deadline", body.deadline)
    for field, value in (("timeout_ms", body.timeout_ms), ("heartbeat_ms", body.heartbeat_ms)):
        check.whole(field, value, 1, check.LAST_MS)
    check_retry(text_of(body.retry))
    entry = append(unit, run_no, body, now, key=draft.key, n=n)
    later = body.due_at is not None and body.due_at > now
    task = Task(
        run_no=run_no,
        k=entry.seq,
        scope=unit.runs.rows[run_no].scope,
        kind="action",
        state="due" if later else "ready",
        pool=body.pool,
        pool_key=body.pool_key,
        requires=f"function:{body.function}",
        priority=body.priority,
        order=now,
        due_at=body.due_at if later else None,
        key=draft.key,
        name=body.function,
        args=unit.spill(run_no, text_of(body.args)),
        retry=text_of(body.retry),
        timeout_ms=body.timeout_ms,
        heartbeat_ms=body.heartbeat_ms,
        deadline=body.deadline,
    )
    unit.tasks.put((run_no, task.k), task)
    unit.open_tasks.put(run_no, (*(unit.open_tasks.get(run_no) or ()), task.k))
    return False


def _cancel_action(unit: Unit, run_no: int, body: ActionCanceled, draft: Draft, now: int, n: int) -> bool:
    """Closes the open task of the action, if there is one: whoever works on it finds its lease over."""
    tasks = (unit.tasks.get((run_no, k)) for k in unit.open_tasks.get(run_no) or ())
    open_ = next((task for task in tasks if task is not None and task.key == draft.key and task.state != "done"), None)
    if open_ is not None:
        move(unit, (run_no, open_.k), "done", now)
    append(unit, run_no, ActionCanceled(None if open_ is None else open_.k), now, key=draft.key, n=n)
    return open_ is not None


def _start_child(unit: Unit, run_no: int, body: ChildStarted, draft: Draft, now: int, n: int) -> bool:
    parent = unit.runs.rows[run_no]
    check.run_id(body.child)
    check.name("name", body.name)
    check.name("version", body.version, empty=True)
    check_place(body.pool, body.pool_key, body.priority)
    check.time_ms("due_at", body.due_at)
    check.time_ms("deadline", body.deadline)
    if unit.run_by_id(parent.scope, body.child) is not None:
        return _refused(unit, run_no, draft, errors.Exists(f"run {body.child} exists"), now, n)
    append(unit, run_no, body, now, key=draft.key, n=n)
    made = RunCreated(
        run_kind="workflow",
        name=body.name,
        version=body.version,
        pool=body.pool,
        pool_key=body.pool_key,
        priority=body.priority,
        by=parent.id,
        input=body.input,
        depth=parent.depth,
        root_no=parent.root_no or run_no,
        tags=body.tags,
        deadline=body.deadline,
    )
    if body.attached:
        made.parent_no, made.parent_key, made.parent_gen = run_no, draft.key, parent.generation
    requires = f"workflow:{body.name}"
    child = create(unit, parent.scope, body.child, made, now, requires=requires, due_at=body.due_at)
    if body.attached:
        unit.children.put(run_no, (*(unit.children.get(run_no) or ()), child.no))
    return False


def _set_state(unit: Unit, run_no: int, body: StateSet, draft: Draft, now: int, n: int) -> bool:
    check.name("name", body.name)
    append(unit, run_no, body, now, key=draft.key, n=n)
    return False


def _mark_patch(unit: Unit, run_no: int, body: PatchMarked, draft: Draft, now: int, n: int) -> bool:
    check.text("id", body.id, 1_024)
    append(unit, run_no, body, now, key=draft.key, n=n)
    return False


def _send_signal(unit: Unit, run_no: int, body: SignalSent, draft: Draft, now: int, n: int) -> bool:
    check.name("signal", body.name)
    me, payload = unit.runs.rows[run_no], text_of(body.payload) or "null"
    try:
        to = _receiver(unit, me, body.run)
        hashed = signal_hash(body.name, payload)
        again = body.dedup is not None and came_before(unit, to, body.dedup, hashed) is not None
    except (errors.Unknown, errors.Ended, errors.Conflict) as refusal:
        return _refused(unit, run_no, draft, refusal, now, n)
    entry = append(unit, run_no, body, now, key=draft.key, n=n)
    if not again:
        told = SignalReceived(body.name, body.payload, dedup=body.dedup, by=me.id)
        _send(unit, me, to, entry.seq, "signal", told, now, key=body.dedup)
    return False


def _send_cancel(unit: Unit, run_no: int, body: CancelSent, draft: Draft, now: int, n: int) -> bool:
    check.text("reason", body.reason, 1_024, empty=True)
    me = unit.runs.rows[run_no]
    try:
        to = _receiver(unit, me, body.run)
    except (errors.Unknown, errors.Ended) as refusal:
        return _refused(unit, run_no, draft, refusal, now, n)
    entry = append(unit, run_no, body, now, key=draft.key, n=n)
    _send(unit, me, to, entry.seq, "cancel", {"reason": body.reason, "by": me.id}, now)
    return False


def _send_event(unit: Unit, run_no: int, body: EventSent, draft: Draft, now: int, n: int) -> bool:
    sends = draft.sends
    if sends is None or len(sends.events) != 1 or sends.events[0].event.id != body.id:
        raise errors.Invalid("event.sent goes with the one event of its id", field="sends", id=body.id)
    mark = unit.mark()
    try:
        (sent,) = emit(unit, unit.runs.rows[run_no], sends, now)
    except errors.Outdated:
        raise
    except errors.StepwellError as refusal:
        unit.rollback(mark)
        return _refused(unit, run_no, draft, refusal, now, n)
    written = EventSent(body.id, sent.status == "duplicate", sent.run_ids)
    append(unit, run_no, written, now, key=draft.key, n=n)
    return True


def _receiver(unit: Unit, me: Run, run_id: str) -> Run:
    """An open run, or one that went on as another, to which the kernel hands the message on."""
    to = known(unit, me.scope, run_id)
    if to.terminal and to.next_no is None:
        raise errors.Ended(f"run {run_id} is {to.status}")
    return to


def _send(
    unit: Unit, me: Run, to: Run, seq: int, kind: str, data: Body | dict[str, str], now: int, *, key: str | None = None
) -> None:
    at = unit.runs.rows[me.no].updated_at
    unit.sent.append(Message(0, me.scope, to.no, me.no, seq, kind, key, at, encode(data).decode()))


def _refused(unit: Unit, run_no: int, draft: Draft, refusal: errors.StepwellError, now: int, n: int) -> bool:
    name = type(refusal).__name__
    error = msgspec.json.encode({"type": _TYPES.get(name, name), "message": refusal.message}).decode()
    append(unit, run_no, StepFailed(raw(error)), now, key=draft.key, n=n)
    return True


_RULES: dict[type[Body], Rule] = {
    ActionScheduled: _schedule_action,
    ActionCanceled: _cancel_action,
    ChildStarted: _start_child,
    StateSet: _set_state,
    PatchMarked: _mark_patch,
    SignalSent: _send_signal,
    CancelSent: _send_cancel,
    EventSent: _send_event,
}

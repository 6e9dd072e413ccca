"""Beginning again: what the kept part of a journal has under way goes on in the new generation."""

from collections.abc import Iterable

import msgspec

from stepwell.kernel import check
from stepwell.kernel.fold import body_of, kept
from stepwell.kernel.journal import deliver
from stepwell.kernel.runs import begin_again, known, state_of
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Restart, RunState
from stepwell.model.entries import ActionScheduled, ChildEnded, ChildStarted, RunRestarted, raw
from stepwell.model.rows import Entry, Run

#: The kinds of entries that begin or end what is under way.
KINDS = (
    "action.scheduled", "action.completed", "action.failed", "action.canceled", "child.started", "child.ended",
    "run.restarted",
)  # fmt: skip


def under_way(entries: Iterable[Entry], keep_seq: int) -> list[Entry]:
    """Of entries of those kinds: the scheduled actions and the attached children that have no end up to `keep_seq`."""
    left: dict[tuple[str, str | None], Entry] = {}
    for entry in kept(entries):
        what, _, happened = entry.kind.partition(".")
        if entry.seq > keep_seq or what == "run":
            continue
        if happened in ("scheduled", "started"):
            left[what, entry.key] = entry
        else:
            left.pop((what, entry.key), None)
    return [entry for entry in left.values() if entry.kind == ActionScheduled.kind or _child(entry).attached]


def restart(unit: Unit, command: Restart, now: int) -> RunState:
    """`Restart`: a new generation of an ended run. Kept actions without a result are done again.

    Kept children without an end tell the one that they had; those that are open are as good as canceled, since the end
    of their parent cancels them.
    """
    run = known(unit, command.scope, command.run_id)
    if not run.terminal:
        raise errors.Open(f"run {run.id} is {run.status}", run_id=run.id, status=run.status)
    if not 0 <= command.keep_seq <= run.head_seq:
        raise errors.Invalid(f"keep_seq must be from 0 to {run.head_seq}", keep_seq=command.keep_seq)
    left = _left(unit, run, command.keep_seq)
    actions = [entry for entry in left if entry.kind == ActionScheduled.kind]
    children = [entry for entry in left if entry.kind == ChildStarted.kind]
    check.room(unit.settings, run, 1 + len(children), 0)
    body = RunRestarted(generation=run.generation + 1, keep_seq=command.keep_seq, by=command.by)
    body.actions, body.children = len(actions), len(children)
    begin_again(unit, run.no, body, now)
    for entry in actions:
        _do_again(unit, entry, now)
    for entry in children:
        deliver(unit, run.no, _end_of(unit, run, _child(entry).child), now, key=entry.key)
    return state_of(unit.runs.rows[run.no])


def _left(unit: Unit, run: Run, keep_seq: int) -> list[Entry]:
    if not keep_seq:
        return []
    of_this_batch = [
        msgspec.structs.replace(entry, data=unit.text(run.no, entry.data))
        for entry in unit.entries
        if entry.run_no == run.no and entry.kind in KINDS
    ]
    return under_way([*unit.kept.get((run.no, keep_seq), ()), *of_this_batch], keep_seq)


def _do_again(unit: Unit, entry: Entry, now: int) -> None:
    """Opens the closed task of an action anew. Its epoch goes on, so that no old lease is good for it."""
    key = (entry.run_no, entry.seq)
    due_at = _due_at(entry)
    later = due_at is not None and due_at > now
    task = msgspec.structs.replace(
        unit.tasks.rows[key],
        state="due" if later else "ready",
        order=now,
        due_at=due_at if later else None,
        failures=0,
        lost=0,
        write_no=0,
    )
    unit.tasks.put(key, task)
    unit.open_tasks.put(entry.run_no, (*(unit.open_tasks.get(entry.run_no) or ()), task.k))
    unit.ready_ahead.put((task.scope, task.pool), True)


def _due_at(entry: Entry) -> int | None:
    body = body_of(entry)
    assert isinstance(body, ActionScheduled)
    return body.due_at


def _child(entry: Entry) -> ChildStarted:
    body = body_of(entry)
    assert isinstance(body, ChildStarted)
    return body


def _end_of(unit: Unit, run: Run, run_id: str) -> ChildEnded:
    child = unit.run_by_id(run.scope, run_id)
    if child is None or not child.terminal or child.next_no is not None:
        return ChildEnded(child=run_id, status="canceled")
    told = ChildEnded(child=run_id, status=child.status)
    if child.status == "completed":
        told.result = raw(unit.text(child.no, child.result))
    elif child.status == "failed":
        told.error = raw(unit.text(child.no, child.error))
    return told

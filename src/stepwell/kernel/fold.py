"""The fold: what each entry does to the run row. Writing and reading a journal use the same function (law 2)."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from stepwell.model.entries import (
    ActionCanceled,
    ActionCompleted,
    ActionFailed,
    ActionScheduled,
    AttemptEnded,
    AttemptStarted,
    Body,
    CancelRequested,
    ChildEnded,
    ChildStarted,
    RunCanceled,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailed,
    RunHeld,
    RunParked,
    RunReleased,
    RunRestarted,
    decode_body,
    text_of,
)
from stepwell.model.rows import Entry, Run

Spill = Callable[[int, str | None], str | None]


def apply(run: Run, entry: Entry, body: Body, spill: Spill) -> None:
    """Takes the next entry of the journal into `run`. `spill` says how a payload of a run stands in its row."""
    assert entry.seq == run.head_seq + 1, "entries are dense (law 1)"
    run.head_seq = entry.seq
    run.updated_at = entry.at
    run.journal_bytes += len(entry.data) if entry.data.isascii() else len(entry.data.encode())
    if entry.n and entry.n != run.write_no:
        run.write_no, run.write_seq = entry.n, entry.seq
    if body.deliverable:
        run.wake_seq = entry.seq
        if run.hold is None and run.status in ("sleeping", "waiting"):
            run.status, run.waits = "queued", None
    effect = _EFFECTS.get(entry.kind)
    if effect is not None:
        effect(run, entry, body, spill)


def fold(no: int, scope: str, run_id: str, entries: Iterable[tuple[Entry, Body]], spill: Spill) -> Run:
    """The run row that a journal says there is."""
    run = Run(no=no, scope=scope, id=run_id)
    for entry, body in entries:
        apply(run, entry, body, spill)
    return run


def kept(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that count: each restart keeps those up to its `keep_seq` and starts from there."""
    left: list[Entry] = []
    for entry in entries:
        if entry.kind == RunRestarted.kind:
            keep_seq = msgspec.json.decode(entry.data)["keep_seq"]
            left = [one for one in left if one.seq <= keep_seq]
        left.append(entry)
    return left


def body_of(entry: Entry) -> Body:
    """The typed body of an entry whose data is at hand."""
    return decode_body(entry.kind, entry.data)


def _created(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    made: RunCreated = body
    run.kind = "step" if made.run_kind == "step" else "workflow"
    run.name, run.version = made.name, made.version
    run.pool, run.pool_key, run.priority = made.pool, made.pool_key, made.priority
    run.parent_no, run.parent_key, run.parent_gen = made.parent_no, made.parent_key, made.parent_gen
    run.root_no = made.root_no
    run.event_no, run.replay, run.depth = made.event_no, made.replay, made.depth
    run.deadline, run.tags, run.callback = made.deadline, text_of(made.tags), text_of(made.callback)
    run.input = spill(run.no, text_of(made.input))
    run.turn, run.created_at, run.generation = entry.seq, entry.at, entry.generation


def _attempt_started(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    started: AttemptStarted = body
    if started.task == run.turn:
        run.status, run.waits = "running", None
        run.epoch, run.write_no, run.write_seq = started.epoch, 0, 0
        run.started_at = entry.at if run.started_at is None else run.started_at


def _attempt_ended(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    ended: AttemptEnded = body
    if ended.task == run.turn and run.hold is None:
        run.status = "queued"


def _parked(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    parked: RunParked = body
    timers_only = parked.due_at is not None and all(wait.startswith("timer:") for wait in parked.waits)
    run.status = "sleeping" if timers_only else "waiting"
    run.waits = msgspec.json.encode(parked.waits).decode() if parked.waits else None


def _held(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    held: RunHeld = body
    run.status, run.hold, run.waits = "waiting", held.reason, None


def _released(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    run.status, run.hold = "queued", None


def _cancel_requested(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    run.cancel_at = entry.at if run.cancel_at is None else run.cancel_at


def _action_scheduled(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    run.open_actions += 1


def _action_ended(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    run.open_actions -= 1


def _action_canceled(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    canceled: ActionCanceled = body
    run.open_actions -= canceled.task is not None


def _child_started(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    started: ChildStarted = body
    run.open_children += started.attached


def _child_ended(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    run.open_children -= 1


def _ended(run: Run, entry: Entry) -> None:
    run.ended_at, run.hold, run.waits, run.open_actions, run.open_children = entry.at, None, None, 0, 0


def _completed(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    done: RunCompleted = body
    _ended(run, entry)
    run.status, run.result, run.result_status = "completed", spill(run.no, text_of(done.result)), done.result_status


def _failed(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    failed: RunFailed = body
    _ended(run, entry)
    run.status, run.error = "failed", spill(run.no, text_of(failed.error))
    run.result, run.result_status = spill(run.no, text_of(failed.result)), failed.result_status


def _canceled(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    _ended(run, entry)
    run.status = "canceled"


def _continued(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    on: RunContinued = body
    _ended(run, entry)
    run.status, run.next_no = "completed", on.to_no


def _restarted(run: Run, entry: Entry, body: Any, spill: Spill) -> None:
    again: RunRestarted = body
    run.generation, run.turn, run.wake_seq = again.generation, entry.seq, entry.seq
    run.kept_seq = again.keep_seq
    run.status, run.result, run.result_status, run.error = "queued", None, None, None
    run.hold = run.cancel_at = run.ended_at = run.waits = run.next_no = run.started_at = None
    run.open_actions, run.open_children = again.actions, again.children
    run.write_no = run.write_seq = 0
    run.deadline = again.deadline
    given = text_of(again.input)
    run.input = run.input if given is None else spill(run.no, given)


_EFFECTS: dict[str, Callable[[Run, Entry, Any, Spill], None]] = {
    RunCreated.kind: _created,
    AttemptStarted.kind: _attempt_started,
    AttemptEnded.kind: _attempt_ended,
    RunParked.kind: _parked,
    RunHeld.kind: _held,
    RunReleased.kind: _released,
    CancelRequested.kind: _cancel_requested,
    ActionScheduled.kind: _action_scheduled,
    ActionCompleted.kind: _action_ended,
    ActionFailed.kind: _action_ended,
    ActionCanceled.kind: _action_canceled,
    ChildStarted.kind: _child_started,
    ChildEnded.kind: _child_ended,
    RunCompleted.kind: _completed,
    RunFailed.kind: _failed,
    RunCanceled.kind: _canceled,
    RunContinued.kind: _continued,
    RunRestarted.kind: _restarted,
}

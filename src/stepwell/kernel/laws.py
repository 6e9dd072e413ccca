"""The laws as checks over what a store holds: each offender is named (source: DESIGN, laws). Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.kernel.fold import apply, body_of
from stepwell.model.entries import ENDS, AttemptStarted, Body, RunRestarted
from stepwell.model.rows import Entry, Run, Task
from stepwell.model.settings import Settings
from stepwell.model.words import RESULT_STATUSES


class Offence(Struct, frozen=True):
    """A law that a row breaks. `law` is its number in DESIGN; `who` names the run, event or row."""

    law: int
    who: str
    what: str


def check_run(
    run: Run, entries: Sequence[Entry], tasks: Sequence[Task], *, expects_message: bool, settings: Settings
) -> list[Offence]:
    """Every law that one run's journal, row and tasks can show."""
    found: list[Offence] = []

    def broken(law: int, what: str) -> None:
        found.append(Offence(law, run.id, what))

    for problem in _dense(run, entries):
        broken(1, problem)
    if found:
        return found
    bodies = [body_of(entry) for entry in entries]
    for problem in _same_fold(run, entries, bodies):
        broken(2, problem)
    for problem in (*_epochs(entries, bodies), *_leases(run, tasks)):
        broken(3, problem)
    for problem in _once(entries):
        broken(4, problem)
    stranded = why_stranded(run, tasks, expects_message=expects_message)
    if stranded:
        broken(6, stranded)
    for problem in _after_the_end(entries):
        broken(9, problem)
    for problem in _bounds(run, settings):
        broken(10, problem)
    for problem in _status(run, tasks):
        broken(12, problem)
    return found


def _dense(run: Run, entries: Sequence[Entry]) -> Iterable[str]:
    for expected, entry in enumerate(entries, start=1):
        if entry.seq != expected:
            yield f"entry {entry.seq} stands where {expected} should"
            return
    if len(entries) != run.head_seq:
        yield f"{len(entries)} entries, the row says {run.head_seq}"
    for before, after in pairwise(entries):
        if after.at < before.at:
            yield f"time goes back from entry {before.seq} to {after.seq}"


def _plain(run_no: int, text: str | None) -> str | None:
    return text


def _same_fold(run: Run, entries: Sequence[Entry], bodies: Sequence[Body]) -> Iterable[str]:
    folded = Run(no=run.no, scope=run.scope, id=run.id)
    for entry, body in zip(entries, bodies, strict=True):
        apply(folded, entry, body, _plain)
    for field in msgspec.structs.fields(Run):
        says, is_ = getattr(folded, field.name), getattr(run, field.name)
        if says != is_ and not _is_blob_of(is_, says):
            yield f"{field.name} is {_short(is_)}, the journal says {_short(says)}"


def _is_blob_of(stored: Any, text: Any) -> bool:
    if not isinstance(stored, str) or not isinstance(text, str) or not stored.startswith("@"):
        return False
    return stored[1:] == hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _epochs(entries: Sequence[Entry], bodies: Sequence[Body]) -> Iterable[str]:
    """Epochs of a task rise by one; no numbered write stands outside a lease of the turn."""
    last: dict[int, int] = {}
    turn, live, write_no = 1, False, 0
    for entry, body in zip(entries, bodies, strict=True):
        if entry.n and (not live or entry.n not in (write_no, write_no + 1)):
            yield f"write {entry.n} at entry {entry.seq} is not of a live lease"
        write_no = entry.n or write_no
        if isinstance(body, AttemptStarted):
            if body.task in last and body.epoch != last[body.task] + 1:
                yield f"epoch {body.epoch} of task {body.task} follows {last[body.task]}"
            last[body.task] = body.epoch
            if body.task == turn:
                live, write_no = True, 0
        elif isinstance(body, RunRestarted):
            turn, live = entry.seq, False
        elif entry.kind in ENDS or entry.kind in ("run.parked", "run.held") or _ends_turn(body, turn):
            live = False


def _ends_turn(body: Any, turn: int) -> bool:
    return bool(body.kind == "attempt.ended" and body.task == turn)


def _leases(run: Run, tasks: Sequence[Task]) -> Iterable[str]:
    for task in tasks:
        leased = task.state == "leased"
        if leased != (task.worker is not None) or leased != (task.lease_until is not None):
            yield f"task {task.k} is {task.state} with worker {task.worker} until {task.lease_until}"
        if leased and (task.epoch < 1 or task.token_hash is None):
            yield f"task {task.k} is leased without an epoch or a token"
        if leased and task.k == run.turn and task.epoch != run.epoch:
            yield f"task {task.k} is leased with epoch {task.epoch}, the journal says {run.epoch}"


def _once(entries: Sequence[Entry]) -> Iterable[str]:
    """Within a generation a step has one result, a run one end."""
    results: dict[tuple[str, str], int] = {}
    ended = 0
    for entry in entries:
        if entry.kind == RunRestarted.kind:
            results.clear()
            ended = 0
        if entry.kind in ENDS:
            if ended:
                yield f"entry {entry.seq} ends a run that ended at {ended}"
            ended = entry.seq
        if _is_result(entry) and entry.key:
            before = results.setdefault((entry.kind.partition(".")[0], entry.key), entry.seq)
            if before != entry.seq:
                yield f"step {entry.key!r} has results at {before} and at {entry.seq}"


def _is_result(entry: Entry) -> bool:
    if entry.kind == "action.canceled":
        return '"task":' in entry.data
    return entry.kind in ("step.completed", "step.failed", "action.completed", "action.failed")


def _after_the_end(entries: Sequence[Entry]) -> Iterable[str]:
    ended = False
    for entry in entries:
        if ended and entry.kind != RunRestarted.kind:
            yield f"entry {entry.seq} ({entry.kind}) comes after the end"
        ended = entry.kind in ENDS


def why_stranded(run: Run, tasks: Sequence[Task], *, expects_message: bool) -> str | None:
    """Law 6: leased, ready, due, waiting for a named thing, or held with a reason; else, what is wrong."""
    if run.terminal:
        return None
    turn = next((task for task in tasks if task.k == run.turn), None)
    if turn is None:
        return "open, without a task"
    if run.hold is not None:
        return None if turn.state == "held" else f"held ({run.hold}), but its task is {turn.state}"
    if turn.state in ("ready", "blocked"):
        return None
    if turn.state == "leased":
        return None if turn.lease_until is not None else "leased without an end"
    if turn.state == "due":
        return None if turn.due_at is not None else "due at no time"
    if turn.state == "parked":
        return _parked(run, tasks, expects_message)
    return f"open, but its task is {turn.state}"


def _parked(run: Run, tasks: Sequence[Task], expects_message: bool) -> str | None:
    waits: list[str] = msgspec.json.decode(run.waits) if run.waits else []
    open_actions = any(task.kind == "action" and task.state != "done" for task in tasks)
    for wait in waits:
        kind = wait.partition(":")[0]
        if kind == "signal" or (kind == "action" and open_actions):
            return None
        if kind == "child" and (run.open_children or expects_message):
            return None
        if kind not in ("action", "child", "timer"):
            return None
    return f"parked, and nothing of {waits} can happen"


def _bounds(run: Run, settings: Settings) -> Iterable[str]:
    # What the kernel itself writes to end a run may go past the bound that its worker has.
    spare = 64
    if run.head_seq > settings.journal_entries + spare:
        yield f"{run.head_seq:,} entries, the limit is {settings.journal_entries:,}"
    if run.journal_bytes > settings.journal_bytes + settings.payload_bytes * 2:
        yield f"{run.journal_bytes:,} bytes of journal, the limit is {settings.journal_bytes:,}"


def _status(run: Run, tasks: Sequence[Task]) -> Iterable[str]:
    """What a list says is what the tasks say."""
    if run.result_status is not None and run.result_status not in RESULT_STATUSES:
        yield f"result_status is {run.result_status!r}"
    if run.terminal:
        open_ = [task.k for task in tasks if task.state != "done"]
        if open_:
            yield f"{run.status}, with open tasks {open_}"
        if run.ended_at is None:
            yield f"{run.status}, without the time it ended"
        return
    turn = next((task for task in tasks if task.k == run.turn), None)
    if turn is None:
        return
    if (run.status == "running") != (turn.state == "leased"):
        yield f"{run.status}, but its task is {turn.state}"
    if run.status in ("sleeping", "waiting") and turn.state not in ("parked", "due", "held"):
        yield f"{run.status}, but its task is {turn.state}"
    actions = sum(task.kind == "action" and task.state != "done" for task in tasks)
    if actions != run.open_actions:
        yield f"{actions} open actions, the row says {run.open_actions}"

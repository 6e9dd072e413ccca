"""Runs: how they start, end, and begin again."""

from msgspec import UNSET

from stepwell.kernel import check
from stepwell.kernel.journal import append
from stepwell.kernel.leases import grant
from stepwell.kernel.tasks import move, slot
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Restart, RunState, Started, StartRun
from stepwell.model.entries import (
    Body,
    ChildEnded,
    RunCanceled,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailed,
    RunRestarted,
    encode,
    raw,
)
from stepwell.model.rows import Message, Run, Task


def create(
    unit: Unit,
    scope: str,
    run_id: str,
    body: RunCreated,
    now: int,
    *,
    requires: str = "",
    due_at: int | None = None,
    retry: str | None = None,
) -> Run:
    """A new run with its first entry and its one open task."""
    run = Run(no=unit.take_no("run"), scope=scope, id=run_id)
    unit.runs.put(run.no, run)
    unit.ids.put((scope, run_id), run.no)
    append(unit, run.no, body, now)
    waiting = due_at is not None and due_at > now
    task = Task(
        run_no=run.no,
        k=unit.runs.rows[run.no].turn,
        scope=scope,
        kind="step" if body.run_kind == "step" else "turn",
        state="due" if waiting else "ready",
        pool=body.pool,
        pool_key=body.pool_key,
        requires=requires,
        priority=body.priority,
        order=now,
        due_at=due_at if waiting else None,
        retry=retry,
    )
    unit.tasks.put((run.no, task.k), task)
    if not waiting:
        unit.ready_ahead[(scope, task.pool)] = True
    return unit.runs.rows[run.no]


def start_run(unit: Unit, command: StartRun, now: int) -> Started:
    """`StartRun`: an id that is there answers with its run, if the input is the same."""
    check_start(unit, command)
    existing = unit.run_by_id(command.scope, command.id)
    if existing is not None:
        return _existing(unit, command, existing, now)
    ahead = unit.ready_ahead.get((command.scope, command.pool), False)
    body = RunCreated(
        run_kind="workflow",
        name=command.name,
        version=command.version,
        pool=command.pool,
        pool_key=command.pool_key,
        priority=command.priority,
        by=command.by,
        input=raw(command.input),
        tags=UNSET if command.tags is None else raw(command.tags),
        deadline=command.deadline,
    )
    run = create(unit, command.scope, command.id, body, now, requires=command.requires, due_at=command.due_at)
    task = unit.tasks.rows[(run.no, run.turn)]
    started = Started(run.no, run.id, created=True)
    fused = command.claim_for
    if fused is not None and not ahead and task.state == "ready" and slot(unit, task, now) == "free":
        unit.ready_ahead[(command.scope, command.pool)] = False
        key = (run.no, run.turn)
        started.claim = grant(unit, key, fused.worker, fused.lease_ms, fused.secret, command.version, now)
    return started


def check_start(unit: Unit, command: StartRun) -> None:
    """The bounds of what a caller names and sends."""
    check.run_id(command.id)
    check.name("name", command.name)
    check.name("scope", command.scope)
    check.name("pool", command.pool)
    check.name("version", command.version, empty=True)
    check.payload(unit.settings, "input", command.input)
    check.payload(unit.settings, "tags", command.tags)
    if command.pool_key is not None:
        check.run_id(command.pool_key)


def _existing(unit: Unit, command: StartRun, run: Run, now: int) -> Started:
    if command.reuse == "raise":
        raise errors.Exists(f"run {run.id} exists", run_id=run.id)
    if command.reuse == "replace":
        if not run.terminal:
            end(unit, run.no, RunCanceled(by=command.by, reason="replaced", terminated=True), now)
        begin_again(unit, run.no, 0, command.by, now, text=command.input)
        return Started(run.no, run.id, created=True)
    same = run.input == unit.spill(run.no, command.input) and run.name == command.name
    if not same:
        raise errors.Conflict(f"run {run.id} exists with another name or input", run_id=run.id, name=run.name)
    return Started(run.no, run.id, created=False)


def end(unit: Unit, run_no: int, body: Body, now: int, *, n: int = 0) -> None:
    """Writes a terminal entry: closes every task, tells the parent, cancels attached children."""
    run = unit.runs.edit(run_no)
    children = list(unit.children.get(run_no, ())) if run.open_children else []
    entry = append(unit, run_no, body, now, n=n)
    run = unit.runs.rows[run_no]
    close(unit, run, now)
    first = run.generation == 1  # a parent counts one end for each child that it started
    if run.parent_no is not None and first and not isinstance(body, RunContinued):
        told = ChildEnded(child=run.id, status=run.status)
        if isinstance(body, RunCompleted):
            told.result = body.result
        elif isinstance(body, RunFailed):
            told.error = body.error
        data = encode(told).decode()
        key = f"{run.parent_gen}:{run.parent_key}"
        unit.sent.append(Message(0, run.scope, run.parent_no, run_no, entry.seq, "child.ended", key, entry.at, data))
    for child in children:
        reason = '{"reason":"the parent ended"}'
        unit.sent.append(Message(0, run.scope, child, run_no, entry.seq, "cancel", None, entry.at, reason))


def close(unit: Unit, run: Run, now: int) -> None:
    """Closes all open tasks of a run."""
    for k in {run.turn, *unit.open_tasks.get(run.no, ())}:
        task = unit.tasks.get((run.no, k))
        if task is not None and task.state != "done":
            move(unit, (run.no, k), "done", now)


def restart(unit: Unit, command: Restart, now: int) -> RunState:
    """`Restart`: a new generation of an ended run."""
    run = known(unit, command.scope, command.run_id)
    if not run.terminal:
        raise errors.Open(f"run {run.id} is {run.status}", run_id=run.id, status=run.status)
    if not 0 <= command.keep_seq <= run.head_seq:
        raise errors.Invalid(f"keep_seq must be from 0 to {run.head_seq}", keep_seq=command.keep_seq)
    begin_again(unit, run.no, command.keep_seq, command.by, now)
    return state_of(unit.runs.rows[run.no])


def begin_again(unit: Unit, run_no: int, keep_seq: int, by: str, now: int, *, text: str | None = None) -> None:
    """Raises the generation and opens one turn, set up as the last one was."""
    old = unit.tasks.rows[(run_no, unit.runs.rows[run_no].turn)]
    run = unit.runs.edit(run_no)
    body = RunRestarted(generation=run.generation + 1, keep_seq=keep_seq, by=by)
    if text is not None:
        body.input = raw(text)
    entry = append(unit, run_no, body, now)
    task = Task(
        run_no=run_no,
        k=entry.seq,
        scope=old.scope,
        kind=old.kind,
        state="ready",
        pool=old.pool,
        pool_key=old.pool_key,
        requires=old.requires,
        priority=old.priority,
        order=now,
        epoch=run.epoch,
        output_n=old.output_n,
        output_bytes=old.output_bytes,
        retry=old.retry,
    )
    unit.tasks.put((run_no, task.k), task)


def known(unit: Unit, scope: str, run_id: str) -> Run:
    """A run by its id, or `Unknown`; a foreign one looks the same."""
    run = unit.run_by_id(scope, run_id)
    if run is None:
        raise errors.Unknown(f"no run {run_id!r}", run_id=run_id)
    return run


def state_of(run: Run) -> RunState:
    """The short answer of commands that change a run."""
    return RunState(run.id, run.status, run.generation, run.hold)

"""Runs: how they start, end, and begin again."""

from msgspec import UNSET

from stepwell.kernel import check
from stepwell.kernel.callbacks import call_back, check_callback
from stepwell.kernel.journal import append
from stepwell.kernel.leases import grant, leased_by
from stepwell.kernel.tasks import check_place, check_retry, follow_clock, move, slot
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import RunState, Started, StartRun
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
    unit.owned.add(id(run))
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
        unit.ready_ahead.put((scope, task.pool), True)
    return unit.runs.rows[run.no]


def start_run(unit: Unit, command: StartRun, now: int) -> Started:
    """`StartRun`: an id that is there answers with its run, if the input is the same."""
    check_start(unit, command)
    existing = unit.run_by_id(command.scope, command.id)
    if existing is not None:
        return _existing(unit, command, existing, now)
    ahead = unit.ready_ahead.get((command.scope, command.pool))
    body = RunCreated(
        run_kind=command.kind,
        name=command.name,
        version=command.version,
        pool=command.pool,
        pool_key=command.pool_key,
        priority=command.priority,
        by=command.by,
        input=raw(command.input),
        tags=UNSET if command.tags is None else raw(command.tags),
        deadline=command.deadline,
        callback=UNSET if command.callback is None else raw(command.callback),
    )
    requires, retry, due_at = command.requires, command.retry, command.due_at
    run = create(unit, command.scope, command.id, body, now, requires=requires, retry=retry, due_at=due_at)
    task = unit.tasks.rows[(run.no, run.turn)]
    started = Started(run.no, run.id, created=True)
    fused = command.claim_for
    if fused is not None and not ahead and task.state == "ready":
        follow_clock(unit, task, now)
        if slot(unit, task, now) == "free":
            unit.ready_ahead.put((command.scope, command.pool), False)
            key = (run.no, run.turn)
            started.claim = grant(unit, key, fused.worker, fused.lease_ms, fused.secret, command.version, now)
    return started


def check_start(unit: Unit, command: StartRun) -> None:
    """The bounds of what a caller names and sends."""
    check.run_id(command.id)
    check.name("name", command.name)
    check.name("scope", command.scope)
    check.name("version", command.version, empty=True)
    check_place(command.pool, command.pool_key, command.priority)
    check.json(unit.settings, "input", command.input)
    check.json(unit.settings, "tags", command.tags)
    check.time_ms("due_at", command.due_at)
    check.time_ms("deadline", command.deadline)
    check_callback(unit, command.callback)
    check_retry(command.retry)
    if command.kind not in ("workflow", "step"):
        raise errors.Invalid(f"kind {command.kind!r}", hint="One of workflow, step.", field="kind")
    if command.claim_for is not None:
        check.lease(command.claim_for.worker, command.claim_for.lease_ms, command.claim_for.secret)


def _existing(unit: Unit, command: StartRun, run: Run, now: int) -> Started:
    if command.reuse == "raise":
        raise errors.Exists(f"run {run.id} exists", run_id=run.id)
    if command.reuse == "replace":
        return _replace(unit, command, run, now)
    if run.name != command.name or not unit.is_stored_as(run.input, command.input):
        raise errors.Conflict(f"run {run.id} exists with another name or input", run_id=run.id, name=run.name)
    started = Started(run.no, run.id, created=False)
    if command.claim_for is not None:
        started.claim = leased_by(unit, (run.no, run.turn), command.claim_for.secret, now)
    return started


def _replace(unit: Unit, command: StartRun, run: Run, now: int) -> Started:
    """Ends the run and starts it anew with the given input. What a run is cannot be replaced, only what it is given."""
    given = (command.name, command.version, command.pool, command.pool_key, command.priority, command.tags)
    if given != (run.name, run.version, run.pool, run.pool_key, run.priority, run.tags):
        hint = "Replace keeps name, version, pool, key, priority and tags. Use another id for another kind of run."
        raise errors.Conflict(f"run {run.id} is of another kind", run_id=run.id, name=run.name, hint=hint)
    check.room(unit.settings, run, 2, check.size_of("input", command.input))
    if not run.terminal:
        end(unit, run.no, RunCanceled(by=command.by, reason="replaced", terminated=True), now)
    body = RunRestarted(generation=run.generation + 1, keep_seq=0, by=command.by, input=raw(command.input))
    body.deadline = command.deadline
    begin_again(unit, run.no, body, now, due_at=command.due_at)
    return Started(run.no, run.id, created=True)


def end(unit: Unit, run_no: int, body: Body, now: int, *, n: int = 0) -> None:
    """Ends a run, and calls its callback in the same commit. One that fails is told of in the entry of the end."""
    if unit.runs.rows[run_no].callback is None or isinstance(body, RunContinued):
        _end(unit, run_no, body, now, n)
        return
    mark = unit.mark()
    seq = _end(unit, run_no, body, now, n)
    error = call_back(unit, unit.runs.rows[run_no], body, seq, now)
    if error is not None and isinstance(body, RunCompleted | RunFailed | RunCanceled):
        unit.rollback(mark)
        body.callback_error = error
        _end(unit, run_no, body, now, n)


def _end(unit: Unit, run_no: int, body: Body, now: int, n: int) -> int:
    """Writes a terminal entry: closes every task, tells the parent, cancels attached children."""
    run = unit.runs.edit(run_no)
    children = list(unit.children.get(run_no) or ()) if run.open_children else []
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
    return entry.seq


def close(unit: Unit, run: Run, now: int) -> None:
    """Closes all open tasks of a run."""
    for k in {run.turn, *(unit.open_tasks.get(run.no) or ())}:
        task = unit.tasks.get((run.no, k))
        if task is not None and task.state != "done":
            move(unit, (run.no, k), "done", now)


def begin_again(unit: Unit, run_no: int, body: RunRestarted, now: int, *, due_at: int | None = None) -> None:
    """Begins a generation, and opens one turn, set up as the last one was."""
    old = unit.tasks.rows[(run_no, unit.runs.rows[run_no].turn)]
    entry = append(unit, run_no, body, now)
    waiting = due_at is not None and due_at > now
    task = Task(
        run_no=run_no,
        k=entry.seq,
        scope=old.scope,
        kind=old.kind,
        state="due" if waiting else "ready",
        pool=old.pool,
        pool_key=old.pool_key,
        requires=old.requires,
        priority=old.priority,
        order=now,
        due_at=due_at if waiting else None,
        epoch=unit.runs.rows[run_no].epoch,
        output_n=old.output_n,
        output_bytes=old.output_bytes,
        retry=old.retry,
    )
    unit.tasks.put((run_no, task.k), task)
    unit.ready_ahead.put((task.scope, task.pool), True)


def known(unit: Unit, scope: str, run_id: str) -> Run:
    """A run by its id, or `Unknown`; a foreign one looks the same."""
    run = unit.run_by_id(scope, run_id)
    if run is None:
        raise errors.Unknown(f"no run {run_id!r}", run_id=run_id)
    return run


def state_of(run: Run) -> RunState:
    """The short answer of commands that change a run."""
    return RunState(run.id, run.status, run.generation, run.hold)

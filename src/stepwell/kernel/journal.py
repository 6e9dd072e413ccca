"""Appending: the one way in which a run changes."""

from stepwell.kernel.fold import apply
from stepwell.kernel.tasks import move
from stepwell.kernel.unit import Unit
from stepwell.model.entries import Body, RunRestarted, TimerFired, encode
from stepwell.model.rows import Entry


def append(unit: Unit, run_no: int, body: Body, now: int, *, key: str | None = None, n: int = 0) -> Entry:
    """Writes the next entry of a run and folds it into the row. Entry times never go back within a run."""
    run = unit.runs.edit(run_no)
    assert run.ended_at is None or isinstance(body, RunRestarted), f"{body.kind} after the end (law 9)"
    generation = body.generation if isinstance(body, RunRestarted) else run.generation
    data = encode(body).decode()
    entry = Entry(run_no, run.head_seq + 1, body.kind, key, n, generation, max(now, run.updated_at), data)
    if body.deliverable and not n:
        unit.woken.setdefault(run_no, run.wake_seq)
    apply(run, entry, body, unit.spill)
    entry.data = unit.spill(run_no, data) or data
    unit.entries.append(entry)
    return entry


def deliver(unit: Unit, run_no: int, body: Body, now: int, *, key: str | None = None) -> Entry:
    """Appends a deliverable entry from outside the turn: what is due fires first, and a parked turn gets ready."""
    fire(unit, run_no, now)
    entry = append(unit, run_no, body, now, key=key)
    wake(unit, run_no, now)
    return entry


def fire(unit: Unit, run_no: int, now: int) -> bool:
    """Fires the timer that a parked run waits for, if it is due: it beats whatever comes at a later time."""
    run = unit.runs.rows[run_no]
    task = unit.tasks.get((run_no, run.turn))
    if task is None or task.state != "due" or task.due_key is None or task.due_at is None or task.due_at > now:
        return False
    append(unit, run_no, TimerFired(task.due_at), now, key=task.due_key)
    wake(unit, run_no, now)
    return True


def wake(unit: Unit, run_no: int, now: int) -> None:
    """Makes a parked turn ready. One that is leased, ready, backing off or held hears of the entry anyhow."""
    run = unit.runs.rows[run_no]
    task = unit.tasks.get((run_no, run.turn))
    if task is not None and (task.state == "parked" or (task.state == "due" and task.due_key is not None)):
        move(unit, (run_no, task.k), "ready", now)

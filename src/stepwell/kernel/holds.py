"""Holding a run where it is, and letting it go on."""

from stepwell.kernel.journal import append
from stepwell.kernel.tasks import move
from stepwell.kernel.unit import Unit
from stepwell.model.entries import RunHeld, RunReleased
from stepwell.model.rows import Run, Task


def hold(unit: Unit, run: Run, body: RunHeld, now: int, *, n: int = 0) -> None:
    """Holds every open task of a run and says why."""
    for k in {run.turn, *(unit.open_tasks.get(run.no) or ())}:
        task = unit.tasks.get((run.no, k))
        if task is None or task.state in ("done", "held"):
            continue
        due_at = task.due_at if _keeps_its_time(task, body.reason) else None
        move(unit, (run.no, k), "held", now).due_at = due_at
    append(unit, run.no, body, now, n=n)


def unhold(unit: Unit, run: Run, by: str, now: int) -> None:
    """Takes every task of a held run back into play."""
    for k in {run.turn, *(unit.open_tasks.get(run.no) or ())}:
        task = unit.tasks.get((run.no, k))
        if task is None or task.state != "held":
            continue
        due_at = task.due_at
        later = due_at is not None and due_at > now
        moved = move(unit, (run.no, k), "due" if later else "ready", now)
        moved.due_at = due_at if later else None
        moved.lost = 0
    append(unit, run.no, RunReleased(by), now)


def _keeps_its_time(task: Task, reason: str) -> bool:
    """A delay goes on behind a pause; a turn looks at its timers anew, and what was held as broken is tried at once."""
    return task.kind == "action" or (reason == "paused" and task.due_key is None)

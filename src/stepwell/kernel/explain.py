"""Why a run does not move, in a sentence: what an operator asks first. Pure."""

from collections.abc import Sequence

import msgspec

from stepwell.model.rows import Run, Task


def explain(run: Run, tasks: Sequence[Task], now: int) -> str:
    """What a run waits for, and what will move it."""
    if run.terminal:
        return f"ended: {run.status}"
    turn = next((task for task in tasks if task.k == run.turn), None)
    if turn is None:
        return "open without a task; run `stepwell doctor`"
    if run.hold is not None:
        return f"held ({run.hold}); goes on when it is released"
    return _TELL[turn.state](run, turn, now)


def _ready(run: Run, task: Task, now: int) -> str:
    needs = f" that has {task.requires}" if task.requires else ""
    waited = max(0, now - task.order) / 1_000
    return f"ready for {waited:.1f} s: waits for a worker with a free slot in pool {task.pool}{needs}"


def _leased(run: Run, task: Task, now: int) -> str:
    left = ((task.lease_until or now) - now) / 1_000
    asked = "; asked to cancel" if run.cancel_at is not None else ""
    return f"attempt {task.attempt} runs at {task.worker}, lease for {left:.1f} s more{asked}"


def _due(run: Run, task: Task, now: int) -> str:
    left = max(0, (task.due_at or now) - now) / 1_000
    why = f"sleeps on timer {task.due_key}" if task.due_key else f"is tried again after {task.attempt} attempts"
    return f"{why}, in {left:.1f} s"


def _parked(run: Run, task: Task, now: int) -> str:
    waits: list[str] = msgspec.json.decode(run.waits) if run.waits else []
    return "waits for " + (", ".join(waits) or "nothing")


def _blocked(run: Run, task: Task, now: int) -> str:
    return f"key {task.pool_key} of pool {task.pool} is full; goes on when a lease of that key ends"


_TELL = {"ready": _ready, "leased": _leased, "due": _due, "parked": _parked, "blocked": _blocked}

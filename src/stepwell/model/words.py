"""Statuses, states and kinds: the words that code, SQL, CLI, wire and docs share (source: DESIGN §2, KERNEL)."""

from typing import Literal, get_args

Status = Literal["queued", "running", "sleeping", "waiting", "completed", "failed", "canceled"]
ResultStatus = Literal["skipped", "completed", "changed", "needs_intervention", "blocked", "failed"]
Hold = Literal["paused", "mismatch", "stalled", "poison"]
RunKind = Literal["step", "workflow"]
TaskKind = Literal["step", "turn", "action", "callback", "schedule"]
TaskState = Literal["ready", "leased", "parked", "due", "blocked", "held", "done"]
OutputKind = Literal["system", "stdout", "stderr", "agent"]
Reuse = Literal["return", "raise", "replace"]

STATUSES: tuple[Status, ...] = get_args(Status)
RESULT_STATUSES: tuple[ResultStatus, ...] = get_args(ResultStatus)
TASK_STATES: tuple[TaskState, ...] = get_args(TaskState)
TERMINAL: frozenset[Status] = frozenset(("completed", "failed", "canceled"))

#: Results that ask for somebody; with a hold other than paused they are what `needs_attention` says.
ATTENTION: frozenset[str] = frozenset(("needs_intervention", "blocked", "failed"))

#: Which task state may follow which. Every change of a task's state is checked against this table.
TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    "ready": frozenset(("leased", "blocked", "held", "done")),
    "leased": frozenset(("done", "parked", "due", "ready", "held")),
    "parked": frozenset(("ready", "held", "done")),
    "due": frozenset(("ready", "held", "done")),
    "blocked": frozenset(("ready", "held", "done")),
    "held": frozenset(("ready", "due", "done")),
    "done": frozenset(),
}

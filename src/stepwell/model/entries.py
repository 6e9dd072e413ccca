"""The bodies of journal entries: one struct a kind (source: KERNEL, entry kinds).

`key` and the write number are columns of the entry and not repeated here. A payload is `Raw` JSON. Each body says by
whom it may be written: `recordable` ones come in through `Record`, all others are made by the kernel itself.
"""

from typing import ClassVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

NULL = Raw(b"null")


class Body(Struct, omit_defaults=True, gc=False):
    """Base of all bodies. `deliverable`: the workflow sees it, and it wakes a parked run."""

    kind: ClassVar[str] = ""
    deliverable: ClassVar[bool] = False
    recordable: ClassVar[bool] = False


class RunCreated(Body):
    """The first entry: everything the run row starts from."""

    kind: ClassVar[str] = "run.created"
    run_kind: str
    name: str
    version: str = ""
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    by: str = ""
    input: Raw | UnsetType = UNSET
    event_no: int | None = None
    event: str | None = None
    replay: int = 0
    depth: int = 0
    replays: str | None = None  # the run that this one is a replay of
    parent_no: int | None = None
    parent_key: str | None = None
    parent_gen: int = 0
    root_no: int | None = None
    tags: Raw | UnsetType = UNSET
    deadline: int | None = None
    continues: str | None = None
    callback: Raw | UnsetType = UNSET


class AttemptStarted(Body):
    """A worker has leased task `task`."""

    kind: ClassVar[str] = "attempt.started"
    task: int
    task_kind: str
    attempt: int
    epoch: int
    worker: str
    version: str = ""
    via: str = ""


class AttemptEnded(Body):
    """A lease ended without the end of its task: `reason` is expired, failed or released."""

    kind: ClassVar[str] = "attempt.ended"
    task: int
    task_kind: str
    attempt: int
    reason: str
    error: Raw | UnsetType = UNSET
    next_at: int | None = None


class StepCompleted(Body):
    kind: ClassVar[str] = "step.completed"
    deliverable: ClassVar[bool] = True
    recordable: ClassVar[bool] = True
    result: Raw = NULL
    attempts: int = 1


class StepFailed(Body):
    kind: ClassVar[str] = "step.failed"
    deliverable: ClassVar[bool] = True
    recordable: ClassVar[bool] = True
    error: Raw = NULL
    attempts: int = 1


class StepRetried(Body):
    kind: ClassVar[str] = "step.retried"
    recordable: ClassVar[bool] = True
    attempt: int
    next_at: int
    error: Raw = NULL


class ActionScheduled(Body):
    """A task for any worker that has `function`. The task's number is the number of this entry."""

    kind: ClassVar[str] = "action.scheduled"
    recordable: ClassVar[bool] = True
    function: str
    args: Raw = NULL
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    due_at: int | None = None
    retry: Raw | UnsetType = UNSET
    timeout_ms: int | None = None
    heartbeat_ms: int | None = None
    deadline: int | None = None


class ActionCompleted(Body):
    kind: ClassVar[str] = "action.completed"
    deliverable: ClassVar[bool] = True
    task: int
    result: Raw = NULL


class ActionFailed(Body):
    kind: ClassVar[str] = "action.failed"
    deliverable: ClassVar[bool] = True
    task: int
    error: Raw = NULL


class ActionCanceled(Body):
    """The workflow does not want the action of this key any more. `task`: the one that was open, set by the kernel."""

    kind: ClassVar[str] = "action.canceled"
    recordable: ClassVar[bool] = True
    task: int | None = None


class ChildStarted(Body):
    """A run that this one started; attached children are told of a cancel and tell their end."""

    kind: ClassVar[str] = "child.started"
    recordable: ClassVar[bool] = True
    child: str
    name: str
    version: str = ""
    input: Raw = NULL
    attached: bool = True
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    due_at: int | None = None
    deadline: int | None = None
    tags: Raw | UnsetType = UNSET


class ChildEnded(Body):
    kind: ClassVar[str] = "child.ended"
    deliverable: ClassVar[bool] = True
    child: str
    status: str
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class TimerFired(Body):
    kind: ClassVar[str] = "timer.fired"
    deliverable: ClassVar[bool] = True
    recordable: ClassVar[bool] = True
    due_at: int


class PatchMarked(Body):
    kind: ClassVar[str] = "patch.marked"
    recordable: ClassVar[bool] = True
    id: str


class StateSet(Body):
    """A named value that callers can read; the last one of a name counts."""

    kind: ClassVar[str] = "state.set"
    recordable: ClassVar[bool] = True
    name: str
    value: Raw = NULL


class SignalSent(Body):
    """A signal to `run`, delivered after this commit."""

    kind: ClassVar[str] = "signal.sent"
    recordable: ClassVar[bool] = True
    run: str
    name: str
    payload: Raw = NULL
    dedup: str | None = None


class CancelSent(Body):
    """A cancel of `run`, delivered after this commit."""

    kind: ClassVar[str] = "cancel.sent"
    recordable: ClassVar[bool] = True
    run: str
    reason: str = ""


class EventSent(Body):
    """An event that came to be with this entry; `duplicate` and `runs` are set by the kernel."""

    kind: ClassVar[str] = "event.sent"
    recordable: ClassVar[bool] = True
    id: str
    duplicate: bool = False
    runs: list[str] = []


class SignalReceived(Body):
    kind: ClassVar[str] = "signal.received"
    deliverable: ClassVar[bool] = True
    name: str
    payload: Raw = NULL
    error: Raw | UnsetType = UNSET
    dedup: str | None = None
    by: str = ""


class CancelRequested(Body):
    kind: ClassVar[str] = "cancel.requested"
    deliverable: ClassVar[bool] = True
    by: str = ""
    reason: str = ""


class RunParked(Body):
    kind: ClassVar[str] = "run.parked"
    attempt: int
    waits: list[str] = []
    due_at: int | None = None
    due_key: str | None = None
    unread: list[str] = []


class RunHeld(Body):
    kind: ClassVar[str] = "run.held"
    reason: str
    by: str = ""
    diff: str = ""


class RunReleased(Body):
    kind: ClassVar[str] = "run.released"
    by: str = ""


class RunCompleted(Body):
    """`next` are the events that the result sent, `unread` the names of signals that the workflow never asked for."""

    kind: ClassVar[str] = "run.completed"
    result: Raw = NULL
    result_status: str | None = None
    next: list[str] = []
    unread: list[str] = []
    callback_error: Raw | UnsetType = UNSET


class RunFailed(Body):
    kind: ClassVar[str] = "run.failed"
    error: Raw = NULL
    result: Raw | UnsetType = UNSET
    result_status: str | None = None
    next: list[str] = []
    unread: list[str] = []
    callback_error: Raw | UnsetType = UNSET


class RunCanceled(Body):
    kind: ClassVar[str] = "run.canceled"
    by: str = ""
    reason: str = ""
    terminated: bool = False
    unread: list[str] = []
    callback_error: Raw | UnsetType = UNSET


class RunContinued(Body):
    kind: ClassVar[str] = "run.continued"
    to: str
    to_no: int


class RunRestarted(Body):
    """A new generation, which keeps the entries up to `keep_seq`; it may bring another input.

    `actions` and `children`: how many of those that are kept have no end in what is kept.
    """

    kind: ClassVar[str] = "run.restarted"
    generation: int
    keep_seq: int
    by: str = ""
    input: Raw | UnsetType = UNSET
    deadline: int | None = None
    actions: int = 0
    children: int = 0


#: Every body class by its kind.
KINDS: dict[str, type[Body]] = {cls.kind: cls for cls in Body.__subclasses__()}
#: The names of each body's payloads.
PAYLOADS: dict[type[Body], tuple[str, ...]] = {
    cls: tuple(field.name for field in msgspec.structs.fields(cls) if field.type in (Raw, Raw | UnsetType))
    for cls in KINDS.values()
}
DELIVERABLE: frozenset[str] = frozenset(kind for kind, cls in KINDS.items() if cls.deliverable)
ENDS: frozenset[str] = frozenset(("run.completed", "run.failed", "run.canceled", "run.continued"))

encode = msgspec.json.Encoder().encode
_DECODERS = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}


def decode_body(kind: str, data: str) -> Body:
    """The body of an entry of `kind`, from its JSON."""
    return _DECODERS[kind].decode(data)


def raw(text: str | None) -> Raw:
    """JSON text as a payload; no text is null."""
    return NULL if text is None else Raw(text.encode())


def with_attempts(error: Raw, attempts: int) -> Raw:
    """The payload of an error, which also says after how many attempts it was the last."""
    try:
        fields = msgspec.json.decode(error, type=dict[str, Raw])
    except msgspec.ValidationError:
        return error
    fields["attempts"] = Raw(str(attempts).encode())
    return Raw(encode(fields))


def text_of(payload: Raw | UnsetType) -> str | None:
    """A payload as JSON text, for a row; absent is None."""
    return None if payload is UNSET else bytes(payload).decode()

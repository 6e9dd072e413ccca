"""What a body waits for: one object for each durable operation that was issued and has not been answered.

An operation knows which entries of the journal may speak of it, and what is written to begin it. It does nothing.
"""

from asyncio import Future
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from stepwell.functions.define import Retry
from stepwell.model.entries import (
    ActionCanceled,
    ActionCompleted,
    ActionFailed,
    ActionScheduled,
    Body,
    CancelSent,
    ChildEnded,
    ChildStarted,
    EventSent,
    PatchMarked,
    SignalSent,
    StateSet,
    StepCompleted,
    StepFailed,
    StepRetried,
    TimerFired,
)
from stepwell.workflow.loop import WorkflowTimer

Decode = Callable[[str], Any]


class Op:
    """Base. `key` is its name in the journal; `future` is what the body awaits, if it does."""

    #: What it is called in a diff, and the kinds of the entries that may carry its key.
    what: ClassVar[str] = ""
    answers: ClassVar[tuple[type[Body], ...]] = ()
    __slots__ = ("begun", "future", "key")

    def __init__(self, key: str, future: "Future[Any] | None") -> None:
        self.key, self.future = key, future
        self.begun = False  # its first entry is in the journal

    @property
    def over(self) -> bool:
        """Whether the body does not wait for it any more."""
        return self.future is not None and self.future.done()

    def describe(self) -> str:
        """For a diff: what the code wants."""
        return self.what

    def fits(self, body: Body) -> bool:
        """Whether an entry with its key speaks of this operation."""
        return isinstance(body, self.answers)

    def draft(self) -> Body | None:
        """What is written to begin it; None: something else begins it."""
        return None


class StepOp(Op):
    """A function that runs on this worker; `fn` is None for a query, which `function` names."""

    what = "a step"
    answers = (StepCompleted, StepFailed, StepRetried)
    __slots__ = ("args", "attempt", "deadline_ms", "fn", "kwargs", "next_at", "retry", "signature", "timeout_ms")

    def __init__(
        self,
        key: str,
        future: "Future[Any]",
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        signature: Any,
    ) -> None:
        super().__init__(key, future)
        self.fn, self.args, self.kwargs, self.signature = fn, args, kwargs, signature
        self.retry: Retry | None = None
        self.timeout_ms: int | None = None
        self.deadline_ms: int | None = None
        self.attempt, self.next_at = 1, 0


class MutationOp(Op):
    """A function that runs where the store is, in the transaction that records it."""

    what = "a mutation"
    answers = (StepCompleted, StepFailed)
    __slots__ = ("args", "function", "signature")

    def __init__(self, key: str, future: "Future[Any]", function: str, args: str, signature: Any) -> None:
        super().__init__(key, future)
        self.function, self.args, self.signature = function, args, signature


class DraftedOp(Op):
    """An operation that begins with an entry of its own."""

    __slots__ = ("body",)

    def __init__(self, key: str, future: "Future[Any] | None", body: Body) -> None:
        super().__init__(key, future)
        self.body = body

    def draft(self) -> Body | None:
        return self.body


class ActionOp(DraftedOp):
    """A function that any worker runs."""

    what = "an action"
    answers = (ActionScheduled, ActionCompleted, ActionFailed, ActionCanceled, StepFailed)
    body: ActionScheduled
    __slots__ = ("signature",)

    def __init__(self, key: str, future: "Future[Any]", body: ActionScheduled, signature: Any) -> None:
        super().__init__(key, future, body)
        self.signature = signature

    def describe(self) -> str:
        return f"action {self.body.function}"

    def fits(self, body: Body) -> bool:
        return super().fits(body) and not (isinstance(body, ActionScheduled) and body.function != self.body.function)


class ChildOp(DraftedOp):
    """A child workflow: `future` is its start, `end` its end."""

    what = "a child workflow"
    answers = (ChildStarted, ChildEnded, StepFailed)
    body: ChildStarted
    __slots__ = ("end", "signature")

    def __init__(self, key: str, future: "Future[Any]", body: ChildStarted, signature: Any, end: "Future[Any]") -> None:
        super().__init__(key, future, body)
        self.signature, self.end = signature, end

    @property
    def over(self) -> bool:
        """Once it has begun, somebody may ask for its end later, unless that was given up."""
        return self.end.cancelled() or (not self.begun and super().over)

    def describe(self) -> str:
        return f"child workflow {self.body.name}"

    def fits(self, body: Body) -> bool:
        return super().fits(body) and not (isinstance(body, ChildStarted) and body.name != self.body.name)


class StateOp(DraftedOp):
    """`ctx.set`."""

    what = "a state"
    answers = (StateSet, StepFailed)
    __slots__ = ()


class SendOp(DraftedOp):
    """A signal or a cancel to another run."""

    what = "a message to another run"
    answers = (SignalSent, CancelSent, StepFailed)
    __slots__ = ()


class PatchOp(DraftedOp):
    """The mark of a change in the code."""

    what = "a patch"
    answers = (PatchMarked,)
    __slots__ = ()


class EventOp(Op):
    """`ctx.dispatch`: the host matches the event first."""

    what = "an event"
    answers = (EventSent, StepFailed)
    __slots__ = ("event",)

    def __init__(self, key: str, future: "Future[Any]", event: Any) -> None:
        super().__init__(key, future)
        self.event = event


class CancelOp(DraftedOp):
    """Tells the kernel that nobody waits for an action any more. It has the key of the action."""

    what = "the cancel of an action"
    answers = (ActionCanceled,)
    __slots__ = ()


class TimerOp(Op):
    """A timer of the loop."""

    what = "a timer"
    answers = (TimerFired,)
    __slots__ = ("timer",)

    def __init__(self, timer: WorkflowTimer) -> None:
        super().__init__(timer.key, None)
        self.timer = timer

    @property
    def over(self) -> bool:
        return self.timer.cancelled()

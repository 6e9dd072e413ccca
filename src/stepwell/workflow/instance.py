"""One body in memory: its loop, what it waits for, and the journal's entries on their way to it. No I/O.

`deliver` takes the entries one by one, in the order of the journal, the first time and every time after: each is handed
to the operation that it answers, and the body runs until it waits again (source: DESIGN §4, spec workflow-loop 3).
"""

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from stepwell.functions.errors import HistoryMismatch, NondeterministicCall, ResultMismatch
from stepwell.functions.failures import run_error, step_error
from stepwell.model.entries import (
    ActionCanceled,
    ActionCompleted,
    ActionFailed,
    ActionScheduled,
    Body,
    CancelRequested,
    CancelSent,
    ChildEnded,
    ChildStarted,
    EventSent,
    PatchMarked,
    SignalReceived,
    SignalSent,
    StateSet,
    StepCompleted,
    StepFailed,
    StepRetried,
    TimerFired,
    text_of,
)
from stepwell.workflow import library
from stepwell.workflow.loop import WorkflowFuture, WorkflowLoop, WorkflowTimer
from stepwell.workflow.ops import ActionOp, CancelOp, ChildOp, EventOp, MutationOp, Op, SendOp, StepOp, TimerOp
from stepwell.workflow.where import refusal

log = logging.getLogger("stepwell.workflow")
#: The suffix of the key under which a parked run waits for the retry of a step.
RETRY = "~retry"
#: Why a child is canceled that its parent does not wait for any more.
GAVE_UP = "its parent gave it up"


class Inbox:
    """The signals of one name that nobody has read, first in, first out, and who waits for them."""

    __slots__ = ("texts", "waiters")

    def __init__(self) -> None:
        self.texts: deque[SignalReceived] = deque()
        self.waiters: deque[WorkflowFuture] = deque()

    def wake(self) -> None:
        """Wakes the first who still waits; whoever runs first takes the signal, as with asyncio.Queue."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Instance:
    """`body` is called with this instance, in an empty context, when the first entry or `start` comes."""

    def __init__(
        self, body: Callable[["Instance"], Coroutine[Any, Any, Any]], *, run_id: str, generation: int, now_s: float
    ) -> None:
        library.install()
        self.run_id, self.generation = run_id, generation
        self._random: Random | None = None
        make: Any = WorkflowLoop  # what of a loop is not there is put into the class when it is made
        self.loop: WorkflowLoop = make(self, now_s)
        self.pending: dict[str, Op] = {}
        self.fresh: list[Op] = []
        self.issued: dict[str, None] = {}  # in order
        self.inboxes: dict[str, Inbox] = {}
        self.marks: set[str] = set()  # patches that the journal has, or the body asked for first
        self.patches: dict[str, bool] = {}
        self.mismatch: str | None = None
        self.violation: NondeterministicCall | None = None
        self.canceled: CancelRequested | None = None
        self.closing = False
        self.replaying = False  # set by whoever delivers, before each entry
        self.ahead: deque[tuple[int, str | None]] = deque()  # places and keys of own entries that are to come
        self.pump_started: Callable[[], None] = _nobody  # what the host does around each pump
        self.pump_ended: Callable[[], None] = _nobody
        self.on_violation: Callable[[], None] = _nobody
        self.retrying: dict[str, StepOp] = {}  # steps that failed and are tried again
        self._given_up: list[str] = []
        self._gone: list[str] = []
        self._cancels: set[str] = set()  # actions whose cancel is in the journal, or on its way there
        self._thread = threading.get_ident()
        self.root = contextvars.Context().run(self.loop.create_root, body(self))

    # ── the body's side ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def random(self) -> Random:
        """The run's random numbers. Few bodies use any, and the seed is dear."""
        if self._random is None:
            self._random = Random(f"{self.run_id}\0{self.generation}")  # noqa: S311 - the same on every replay
        return self._random

    def key(self, name: str) -> str:
        """The key of the next operation of a name, where the running task stands."""
        return self.loop.scope().key(name)

    def future(self, key: str) -> WorkflowFuture:
        """What the body awaits for an operation."""
        return WorkflowFuture(loop=self.loop, key=key)

    def issue(self, op: Op) -> None:
        """The body wants this done."""
        self.pending[op.key] = op
        self.issued[op.key] = None
        self.fresh.append(op)

    def inbox(self, name: str) -> Inbox:
        """The signals of a name."""
        box = self.inboxes.get(name)
        if box is None:
            box = self.inboxes[name] = Inbox()
        return box

    def was_past_here(self) -> bool:
        """Whether an earlier life of the body got further than it is now: the journal goes on with something that was
        not asked for yet, or with a rest or an end, which both come after all else is written."""
        return any(key is None or key.removesuffix(RETRY) not in self.issued for _, key in self.ahead)

    @property
    def unread(self) -> list[str]:
        """The names of the signals that nobody has read, one for each."""
        return [name for name, box in self.inboxes.items() for _ in box.texts]

    # ── what the loop tells ──────────────────────────────────────────────────────────────────────────────────────

    def timer_started(self, timer: WorkflowTimer) -> None:
        self.issue(TimerOp(timer))

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        self.pending.pop(timer.key, None)

    def given_up(self, key: str) -> None:
        self._given_up.append(key)

    def loop_exception(self, context: dict[str, Any]) -> None:
        if not self.closing:
            error = context.get("exception")
            what = f"{context.get('message', 'an error')}: {error!r}" if error is not None else context.get("message")
            log.warning("run %s: %s", self.run_id, what)

    def violated(self, error: NondeterministicCall) -> None:
        if self.violation is None:
            self.violation = error
        if threading.get_ident() != self._thread:
            self.on_violation()

    # ── what the guards of the environment ask (protocol Ambient) ────────────────────────────────────────────────

    def now_s(self) -> float:
        """Seconds since the epoch, as the body has them."""
        return self.loop.now_s

    def uuid(self) -> UUID:
        """A random UUID that is the same on every replay."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def step_path(self) -> str:
        """Where the running task stands."""
        return self.loop.scope().path.rstrip("/")

    def refuse(self, what: str) -> NondeterministicCall:
        """The error for something real that the body tried."""
        return refusal(what)

    # ── the journal's side ───────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Runs the body until it first waits."""
        self._pump()

    def deliver(self, body: Body, key: str | None, at_ms: int) -> None:
        """The next entry that concerns the body: moves the time, answers its operation, runs the body."""
        if self.mismatch is not None or self.closing:
            return
        act = _DELIVERY.get(type(body))
        if act is None:
            return
        if at_ms > self.loop.now_s * 1_000:
            self.loop.now_s = at_ms / 1_000
        try:
            act(self, body, key or "")
        except HistoryMismatch as mismatch:
            self.mismatch = str(mismatch)
            return
        if not self.root.done():  # what comes after the end moves nothing, whether it was heard then or is replayed
            self._pump()

    def _pump(self) -> None:
        try:
            self.loop.pump()
        except RuntimeError as error:
            self.violated(NondeterministicCall(str(error), hint="Let it wait for a step, a timer or a signal."))
        except SystemExit as error:
            self.violated(NondeterministicCall(f"the body called sys.exit({error.code!r})", hint="Raise an error."))

    def take(self) -> Sequence[Op]:
        """What the body issued since the last time and still wants, in that order; and actions it wants no more."""
        if not self.fresh and not self._given_up:
            return ()
        fresh, self.fresh = self.fresh, []
        wanted: list[Op] = []
        for op in fresh:
            if op.begun or op.key not in self.pending:
                continue
            if op.over:
                del self.pending[op.key]
                self._gone.append(op.key)
            else:
                wanted.append(op)
        return wanted + self._unwanted() if self._given_up else wanted

    def _unwanted(self) -> list[Op]:
        """Operations that the body gave up: actions are canceled as soon as they have begun, others are dropped. Those
        that begin right now are kept until they have."""
        keys, self._given_up = self._given_up, []
        unwanted: list[Op] = []
        for key in keys:
            op = self.pending.get(key)
            if op is None or not op.over:
                continue
            if not isinstance(op, ActionOp | ChildOp):
                del self.pending[key]
                self._gone.append(key)
            elif not op.begun:
                self._given_up.append(key)
            elif key not in self._cancels:
                self._cancels.add(key)
                unwanted.append(CancelOp(key, None, ActionCanceled()))
        return unwanted

    def gone(self) -> Sequence[str]:
        """The keys that were dropped since the last time, so that what runs for them can stop."""
        if not self._gone:
            return ()
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Takes the body out of memory, without any durable effect."""
        if not self.closing:
            self.closing = self.replaying = True
            self.loop.evict()
            for waits in (self.pending, self.inboxes, self.retrying):  # no cycles: they would stay for long
                waits.clear()
            self.fresh = []
            self.pump_started = self.pump_ended = self.on_violation = _nobody

    # ── answering ────────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self, body: Body, key: str) -> Op | None:
        """The operation that an entry speaks of; None when the body has given it up. No such key is a mismatch."""
        op = self.pending.get(key)
        if op is not None and op.fits(body):
            op.begun = True
            return op
        if op is None and key in self.issued:
            return None
        raise HistoryMismatch(self._diff(op, body, key))

    def _diff(self, op: Op | None, body: Body, key: str) -> str:
        recorded = f"{body.kind} {describe(body)}".rstrip()
        now = f"asks for {op.describe()}" if op is not None else "has not asked for it"
        waiting = ", ".join(f"{one.key} ({one.describe()})" for one in list(self.pending.values())[:5]) or "nothing"
        return (
            f"The code no longer fits the journal.\n  step      {key}\n- journal   {recorded}\n+ code      {now}\n"
            f"  it waits for {waiting}"
        )

    def _result(self, body: Any, key: str) -> None:
        op: Any = self._find(body, key)
        if op is None:
            return
        del self.pending[key]
        if not op.future.done():
            op.future.set_result(self._decoded(op, key, text_of(body.result) or "null"))

    def _decoded(self, op: Any, key: str, text: str) -> Any:
        try:
            return op.signature.decode_result(text)
        except ResultMismatch as error:
            raise HistoryMismatch(
                f"A recorded result no longer fits its type.\n  step      {key}\n{error.message}"
            ) from error

    def _failure(self, body: Any, key: str) -> None:
        op: Any = self._find(body, key)
        if op is None:
            return
        del self.pending[key]
        for future in (op.future, getattr(op, "end", None)):
            if future is not None and not future.done():
                future.set_exception(step_error(text_of(body.error) or "{}"))
                future.exception()  # nobody need ask for it

    def _begun(self, body: Any, key: str) -> None:
        self._find(body, key)

    def _recorded(self, body: Any, key: str) -> None:
        """An operation that is done once it is in the journal."""
        op: Any = self._find(body, key)
        if op is not None:
            del self.pending[key]
            if op.future is not None and not op.future.done():
                op.future.set_result(body)

    def _retried(self, body: StepRetried, key: str) -> None:
        op = self._find(body, key)
        if isinstance(op, StepOp):
            op.attempt, op.next_at = body.attempt + 1, body.next_at
            self.retrying[key] = op

    def _action_canceled(self, body: ActionCanceled, key: str) -> None:
        if key not in self.issued:
            raise HistoryMismatch(self._diff(None, body, key))
        self._cancels.add(key)
        op = self.pending.get(key)
        if op is not None and op.over:
            del self.pending[key]

    def _child_started(self, body: ChildStarted, key: str) -> None:
        op = self._find(body, key)
        if not isinstance(op, ChildOp) or op.future is None:
            return
        op.body.child = body.child  # what a restart has kept was started by an earlier generation, with its own id
        if not op.future.done():
            op.future.set_result(body.child)
        elif body.attached:
            self.issue(SendOp(f"{key}~cancel", None, CancelSent(run=body.child, reason=GAVE_UP)))
        if not body.attached:
            del self.pending[key]

    def _child_ended(self, body: ChildEnded, key: str) -> None:
        op = self._find(body, key)
        if not isinstance(op, ChildOp):
            return
        del self.pending[key]
        if op.end.done():
            return
        if body.status == "completed":
            op.end.set_result(self._decoded(op, key, text_of(body.result) or "null"))
        else:
            op.end.set_exception(run_error(text_of(body.error), body.status))
            op.end.exception()

    def _timer_fired(self, body: TimerFired, key: str) -> None:
        base = key.removesuffix(RETRY)
        if base != key:
            op = self.pending.get(base)
            if isinstance(op, StepOp):
                op.next_at = 0
            elif base not in self.issued:
                raise HistoryMismatch(self._diff(None, body, key))
            return
        op = self._find(body, key)
        if isinstance(op, TimerOp):
            del self.pending[key]
            self.loop.fired(op.timer)

    def _signal(self, body: SignalReceived, key: str) -> None:
        box = self.inbox(body.name)
        box.texts.append(body)
        box.wake()

    def _cancel(self, body: CancelRequested, key: str) -> None:
        if self.canceled is None:
            self.canceled = body
            self.loop.inside(self.root.cancel)

    def _patch(self, body: PatchMarked, key: str) -> None:
        op = self.pending.pop(key, None)
        if op is not None:
            op.begun = True
        elif key not in self.issued and body.id not in self.patches:
            raise HistoryMismatch(self._diff(None, body, key))


def describe(body: Body) -> str:
    """What an entry says, short enough for a diff."""
    known: Any = body
    for field in ("function", "name", "id", "child", "run"):
        if isinstance(getattr(known, field, None), str):
            return str(getattr(known, field))
    for field in ("result", "error"):
        if isinstance(getattr(known, field, None), msgspec.Raw):
            return bytes(getattr(known, field)).decode(errors="replace")[:200]
    return ""


def _nobody() -> None:
    return


_DELIVERY: Mapping[type[Body], Callable[[Instance, Any, str], None]] = {
    StepCompleted: Instance._result,
    StepFailed: Instance._failure,
    StepRetried: Instance._retried,
    ActionScheduled: Instance._begun,
    ActionCompleted: Instance._result,
    ActionFailed: Instance._failure,
    ActionCanceled: Instance._action_canceled,
    ChildStarted: Instance._child_started,
    ChildEnded: Instance._child_ended,
    TimerFired: Instance._timer_fired,
    SignalReceived: Instance._signal,
    CancelRequested: Instance._cancel,
    StateSet: Instance._recorded,
    SignalSent: Instance._recorded,
    CancelSent: Instance._recorded,
    EventSent: Instance._recorded,
    PatchMarked: Instance._patch,
}
#: The kinds of entries that concern a body.
SEEN = frozenset(body.kind for body in _DELIVERY)
__all__ = ["GAVE_UP", "RETRY", "SEEN", "EventOp", "Inbox", "Instance", "MutationOp", "describe"]

"""`Context`: what a workflow's body asks for (source: API, contexts). Each durable call is an operation with a key.

The body runs on its own loop; a call makes an operation, awaits its future, and whoever drives the turn does the rest.
"""

import asyncio
import hashlib
from asyncio import events
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from logging import LoggerAdapter
from random import Random
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, Unpack, overload
from uuid import UUID

import msgspec

from stepwell.functions.define import (
    Action,
    ContextOptions,
    Dispatched,
    Duration,
    Event,
    Function,
    Pool,
    Retry,
    Signal,
    State,
    Workflow,
    duration_ms,
)
from stepwell.functions.errors import NondeterministicCall, SignalTimeout
from stepwell.functions.failures import step_error
from stepwell.functions.retry import policy_of
from stepwell.functions.signature import results_of
from stepwell.functions.values import decode, encode, through
from stepwell.kernel import check
from stepwell.model.entries import (
    ActionScheduled,
    Body,
    CancelSent,
    ChildStarted,
    EventSent,
    PatchMarked,
    SignalSent,
    StateSet,
    raw,
    text_of,
)
from stepwell.model.errors import Invalid
from stepwell.workflow.instance import GAVE_UP, Instance
from stepwell.workflow.ops import ActionOp, ChildOp, EventOp, MutationOp, PatchOp, SendOp, StateOp, StepOp
from stepwell.workflow.options import CALL_OPTIONS, check_view, due_ms, moment_ms, refuse_others
from stepwell.workflow.scope import fitting, plain

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
#: The inline step or action that the running code belongs to; None in a body.
CURRENT_STEP: ContextVar[str | None] = ContextVar("stepwell_step", default=None)
#: How long the name of a change in the code may be.
MAX_CHANGE_BYTES = 1_024


def no_pool(pool: Pool, scope: str) -> None:
    """Is told of a pool that a call names, before that call is on its way, where nobody sets limits."""


class Facts(msgspec.Struct, frozen=True):
    """What a body may know of its run, the app's policy, and a name for the code (see `versions`)."""

    run_id: str
    name: str
    version: str = "1"
    generation: int = 1
    attempt: int = 1
    retry: Retry | None = None
    code: str = ""
    scope: str = "main"
    use_pool: Callable[[Pool, str], None] = no_pool


class Context:
    """The first parameter of every workflow. Made by the worker; a view with options is another one."""

    def __init__(
        self,
        instance: Instance,
        facts: Facts,
        log: "LoggerAdapter[Any]",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._instance, self._facts, self._options = instance, facts, options or {}
        self.log = log

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._facts.run_id

    @property
    def version(self) -> str:
        """The version of the workflow that this run was started on."""
        return self._facts.version

    @property
    def random(self) -> Random:
        """Random numbers that are the same on every replay. Not for secrets."""
        return self._instance.random

    def now(self) -> datetime:
        """The time of the last entry that the body has seen, in UTC. It stands still between two awaits."""
        return datetime.fromtimestamp(self._instance.loop.now_s, UTC)

    def uuid(self) -> UUID:
        """A random UUID, the same on every replay."""
        return self._instance.uuid()

    def options(self, **options: Unpack[ContextOptions]) -> Self:
        """A view: the next calls through it use these options. Raises Invalid for an unknown one, and for a value
        that cannot be."""
        check_view(options)
        return type(self)(self._instance, self._facts, self.log, {**self._options, **options})

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, fn: Function[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a registered function and awaits its result: an action on any worker that has it, a mutation or query
        where the store is, a child workflow as a run of its own.

        Raises StepError (StepTimeout) when a function failed for good, RunError when a child did, ArgumentError for
        arguments that do not fit.
        """
        self._enter("call")
        options = self._merged(fn)
        name = str(options.get("name") or fn.path)
        if fn.kind == "workflow":
            if options.get("detached"):
                hint = "Start it with ctx.start(...), or leave detached out."
                raise Invalid("a detached child does not tell its end, so it cannot be called", hint=hint)
            result: R = await self._end_of(await self._child(fn, args, kwargs, options))
        elif fn.kind == "action":
            result = await self._action(fn, args, kwargs, name, options)
        else:
            result = await self._where_the_store_is(fn, args, kwargs, name, options)
        return result

    async def _where_the_store_is(
        self, fn: Function[Any, Any], args: Any, kwargs: Any, name: str, options: Mapping[str, Any]
    ) -> Any:
        refuse_others(f"a {fn.kind}", self._options)
        await self._delayed(name, options)
        key, given = self._instance.key(plain(name)), fn.signature.bind(args, kwargs)
        if fn.kind == "mutation":
            return await self._done(MutationOp(key, self._instance.future(key), fn.path, given, fn.signature))
        return await self._done(self._step_op(key, fn, args, kwargs, fn.signature, options))

    async def _action(
        self, fn: Function[Any, Any], args: Any, kwargs: Any, name: str, options: Mapping[str, Any]
    ) -> Any:
        refuse_others("an action", self._options)
        key, now_ms = self._instance.key(plain(name)), self._now_ms()
        policy = policy_of(options.get("retry"), self._facts.retry)
        body = ActionScheduled(
            function=fn.path,
            args=raw(fn.signature.bind(args, kwargs)),
            pool=self._pool(options),
            pool_key=options.get("key"),
            priority=options.get("priority") or 0,
            due_at=due_ms(options, now_ms),
        )
        if policy is not None:
            body.retry = raw(policy.policy_json())
        if options.get("timeout") is not None:
            body.timeout_ms = duration_ms(options["timeout"], "timeout")
        if options.get("heartbeat") is not None:
            assert isinstance(fn, Action)
            fn.check_heartbeat(options)
            body.heartbeat_ms = duration_ms(options["heartbeat"], "heartbeat")
        if options.get("deadline") is not None:
            body.deadline = now_ms + duration_ms(options["deadline"], "deadline")
        signature = fn.signature if options.get("returns") is None else results_of(fn.fn, options["returns"])
        return await self._done(ActionOp(key, self._instance.future(key), body, signature))

    @overload
    async def step(
        self, name: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def step(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def step(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def step(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def step(self, name: Any, fn: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a function here, on this worker, and records what it returns before the body goes on.

        `def` functions run in a thread. Once recorded it never runs again; a crash before that runs it again.
        Raises StepError (StepTimeout) when it failed for good.
        """
        self._enter("step")
        if not isinstance(name, str):
            name, fn, args = None, name, (() if fn is None else (fn, *args))
        if not callable(fn):
            raise Invalid(
                f"ctx.step needs a function, not {type(fn).__name__}",
                hint="For example ctx.step('note', make_note, order); a registered function is called by ctx.call.",
            )
        options, instance = self._options, self._instance
        name = str(options.get("name") or name or getattr(fn, "__name__", "step"))
        if options:
            refuse_others("a step", options)
            await self._delayed(name, options)
        key = instance.key(plain(name))
        op: Any = self._step_op(key, fn, args, kwargs, results_of(fn, options.get("returns")), options)
        instance.issue(op)
        return await op.future  # not by `_done`: one frame less to go through, in what bodies do most

    def _step_op(self, key: str, fn: Any, args: Any, kwargs: Any, results: Any, options: Mapping[str, Any]) -> StepOp:
        op = StepOp(key, self._instance.future(key), fn, args, kwargs, results)
        if options:
            timeout, deadline = options.get("timeout"), options.get("deadline")
            op.retry = policy_of(options.get("retry") or False, self._facts.retry)
            op.timeout_ms = None if timeout is None else duration_ms(timeout, "timeout")
            op.deadline_ms = None if deadline is None else self._now_ms() + duration_ms(deadline, "deadline")
        return op

    async def _done(self, op: Any) -> Any:
        self._instance.issue(op)
        return await op.future

    async def _delayed(self, name: str, options: Mapping[str, Any]) -> None:
        """What runs here is delayed by a timer of its own; what crosses the queue waits in it."""
        if options.get("delay") is not None or options.get("at") is not None:
            due = due_ms(options, self._now_ms())
            assert due is not None
            await self._until(plain(name) + "~delay", due)

    # ── children and other runs ──────────────────────────────────────────────────────────────────────────────────

    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "RunHandle[R]":
        """Starts a child and returns when the start is durable. It is canceled with this run, unless `detached`."""
        self._enter("start")
        op = await self._child(workflow, args, kwargs, self._merged(workflow))
        return RunHandle(self, op.body.child, op)

    async def _child(self, fn: Function[Any, Any], args: Any, kwargs: Any, options: Mapping[str, Any]) -> ChildOp:
        refuse_others("a child", self._options)
        version = getattr(fn, "version", "1")
        key, now_ms = self._instance.key(plain(str(options.get("name") or fn.path))), self._now_ms()
        deadline = options.get("deadline")
        body = ChildStarted(
            child=options.get("id") or self._child_id(key),
            name=fn.path,
            version=version,
            input=raw(fn.signature.bind(args, kwargs)),
            attached=not options.get("detached"),
            pool=self._pool(options),
            pool_key=options.get("key"),
            priority=options.get("priority") or 0,
            due_at=due_ms(options, now_ms),
            deadline=None if deadline is None else now_ms + duration_ms(deadline, "deadline"),
        )
        if options.get("tags"):
            body.tags = raw(encode(dict(options["tags"])))
        op = ChildOp(key, self._instance.future(key), body, fn.signature, self._instance.loop.create_future())
        await self._done(op)
        return op

    def _child_id(self, key: str) -> str:
        return "run_" + _digest(self._facts.run_id, str(self._facts.generation), key)

    async def _end_of(self, op: ChildOp) -> Any:
        """Awaits an attached child; giving that up cancels it."""
        try:
            return await asyncio.shield(op.end)
        except asyncio.CancelledError:
            if not self._instance.closing and not op.end.done():
                key = self._instance.key("~cancel")
                self._instance.issue(SendOp(key, None, CancelSent(run=op.body.child, reason=GAVE_UP)))
                op.end.cancel()
            raise

    def handle(self, run_id: str) -> "RunHandle[Any]":
        """Another run, to signal or cancel it durably."""
        return RunHandle(self, run_id, None)

    async def dispatch(self, event: Event[Any]) -> Dispatched:
        """Sends an event: its matching flows and workflows start in the commit that records it.

        Without an id it gets one that is the same on every replay. Raises StepError of type Conflict when the id was
        sent before with another body.
        """
        self._enter("dispatch")
        refuse_others("a dispatch", self._options)
        key = self._instance.key(plain(str(self._options.get("name") or f"dispatch:{event.type}")))
        body: EventSent = await self._done(EventOp(key, self._instance.future(key), event))
        return Dispatched(body.id, body.duplicate, list(body.runs))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def sleep(self, duration: Duration, *, name: str | None = None) -> None:
        """Waits, durably: `duration` in seconds or as a timedelta. Zero and less return at once."""
        self._enter("sleep")
        seconds: Any = duration.total_seconds() if isinstance(duration, timedelta) else duration
        if isinstance(seconds, int | float) and seconds < 0:
            self.log.warning("asked to sleep for %s s: goes on at once", seconds)
        else:
            await self._until(plain(name or "sleep"), self._now_ms() + duration_ms(duration, "sleep"))

    async def sleep_until(self, when: datetime, *, name: str | None = None) -> None:
        """Waits until a moment, which needs its time zone. One that is past returns at once."""
        self._enter("sleep_until")
        await self._until(plain(name or "sleep"), moment_ms(when))

    async def _until(self, name: str, due_ms: int) -> None:
        if due_ms <= self._now_ms():
            return
        loop = self._instance.loop
        future = loop.create_future()
        timer = loop.timer(name, due_ms / 1_000, _resolve, future)
        try:
            await future
        finally:
            timer.cancel()

    @overload
    async def wait_for_signal(self, signal: Signal[T], *, timeout: Duration | None = None) -> T: ...
    @overload
    async def wait_for_signal(self, signal: str, type: type[T], *, timeout: Duration | None = None) -> T: ...
    @overload
    async def wait_for_signal(self, signal: str, *, timeout: Duration | None = None) -> Any: ...
    async def wait_for_signal(self, signal: Any, type: Any = None, *, timeout: Duration | None = None) -> Any:  # noqa: A002
        """The oldest signal of a name that nobody has read; one that came early is simply there.

        Raises SignalTimeout, which is a TimeoutError, after `timeout`.
        """
        self._enter("wait_for_signal")
        name = signal.name if isinstance(signal, Signal) else signal
        if not isinstance(name, str) or not name:
            raise Invalid("a signal needs a name", hint="Signal('approval', Decision), or a string.")
        if name not in self._instance.inboxes:
            check.name("signal", name)  # nobody could send another
        wanted = signal.type if isinstance(signal, Signal) else type
        if timeout is None:
            return await self._signal(name, wanted)
        try:
            async with asyncio.timeout(duration_ms(timeout, "timeout") / 1_000) as limit:
                return await self._signal(name, wanted)
        except TimeoutError:
            if limit.expired():
                raise SignalTimeout(f"no signal {name!r} came in time") from None
            raise

    async def _signal(self, name: str, wanted: Any) -> Any:
        box = self._instance.inbox(name)
        while not box.texts:
            waiter = self._instance.loop.create_future()
            box.waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                waiter.cancel()
                with suppress(ValueError):  # it was woken
                    box.waiters.remove(waiter)
                if box.texts and not waiter.cancelled():
                    box.wake()
                raise
        received = box.texts.popleft()
        if box.texts:
            box.wake()
        error = text_of(received.error)
        if error is not None:
            raise step_error(error)
        text = text_of(received.payload) or "null"
        return decode(text, Any if wanted is None else wanted)

    async def signals(self, signal: Signal[T]) -> AsyncIterator[T]:
        """Every signal of a name, as they come, without an end."""
        while True:
            yield await self.wait_for_signal(signal)

    # ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def set(self, state: State[T], value: T) -> None:
        """Says something about this run that others can read at once: `handle.get(state)`."""
        self._enter("set")
        key = self._instance.key(f"set:{plain(state.name)}")
        text = through(value, state.type)[0]
        await self._done(StateOp(key, self._instance.future(key), StateSet(state.name, raw(text))))

    def patched(self, change: str) -> bool:
        """Whether this run takes the new path of a change: True for runs that get here for the first time, False for
        those that were past this point before the change. The answer is recorded with the run."""
        self._enter("patched")
        instance = self._instance
        if change not in instance.patches:
            check.text("change", change, MAX_CHANGE_BYTES)
            new = change in instance.marks or not instance.was_past_here()
            instance.patches[change] = new
            if new:
                instance.issue(PatchOp(fitting(f"~patch/{plain(change)}"), None, PatchMarked(change)))
        return instance.patches[change]

    def continue_as_new(self, workflow: Workflow[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """Not there yet."""
        raise Invalid("continue_as_new is not built yet", hint="Start a new run with ctx.start(...) and return.")

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, call: str) -> None:
        """Refuses a call from anywhere but the body: a step has no key of its own in the journal."""
        instance = self._instance
        if events._get_running_loop() is instance.loop:
            if instance.closing:
                instance.loop.refuse_evicted()
            return
        step = CURRENT_STEP.get()
        where = f'inside ctx.step("{step}")' if step else "outside its workflow's body"
        raise NondeterministicCall(
            f"ctx.{call}() cannot be called {where}", hint="Call it from the body, before or after the step."
        )

    def _merged(self, fn: Function[Any, Any]) -> Mapping[str, Any]:
        given = {name: value for name, value in fn.options.items() if name in CALL_OPTIONS and name != "name"}
        return {**given, **self._options} if given else self._options

    def _pool(self, options: Mapping[str, Any]) -> str:
        pool: Pool | None = options.get("pool")
        if pool is None:
            return "default"
        self._facts.use_pool(pool, self._facts.scope)
        return pool.name

    def _now_ms(self) -> int:
        return round(self._instance.loop.now_s * 1_000)

    async def _send(self, body: Body, name: str) -> None:
        key = self._instance.key(name)
        await self._done(SendOp(key, self._instance.future(key), body))


class RunHandle(Generic[R]):
    """Another run, seen from a body. Everything it does is durable."""

    def __init__(self, ctx: Context, run_id: str, child: ChildOp | None) -> None:
        self.id = run_id
        self._ctx, self._child = ctx, child

    async def result(self) -> R:
        """Awaits the end of an attached child. Raises RunError, RunCanceled."""
        self._ctx._enter("handle.result")
        if self._child is None or not self._child.body.attached:
            raise Invalid(
                f"the end of run {self.id} is not told to this one",
                hint="Only an attached child tells its end: start it without detached=True, or let it send a signal.",
            )
        result: R = await asyncio.shield(self._child.end)
        return result

    async def signal(self, signal: Signal[T] | str, value: T, *, key: str | None = None) -> None:
        """Sends a signal; `key` lets the receiver drop doubles. Raises StepError when there is no such open run."""
        self._ctx._enter("handle.signal")
        if isinstance(signal, Signal):
            name, text = signal.name, through(value, signal.type)[0]
        else:
            name, text = signal, encode(value)
        await self._ctx._send(SignalSent(run=self.id, name=name, payload=raw(text), dedup=key), f"signal:{plain(name)}")

    async def cancel(self, reason: str = "") -> None:
        """Asks it to end. Raises StepError when there is no such open run."""
        self._ctx._enter("handle.cancel")
        await self._ctx._send(CancelSent(run=self.id, reason=reason), "cancel")


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return digest.hex()[:32]

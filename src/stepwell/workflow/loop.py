"""The deterministic event loop on which a workflow's body runs (source: spec workflow-loop, must-dos 1 to 12).

It is pumped from the worker's own loop, in the same thread: whatever is ready runs, then it is idle until the journal
brings the next entry. Time moves only then. What asyncio offers works on it; what would do real I/O is refused.
"""

import asyncio
import inspect
from asyncio import events, tasks
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVarTuple, Unpack
from zlib import crc32

from stepwell.functions.errors import NondeterministicCall
from stepwell.workflow import generators
from stepwell.workflow.scope import Scope

#: Callbacks that one pump may run before the body counts as one that never gets idle.
PUMP_BUDGET = 100_000
#: The last time that a timer may have, in seconds since the epoch: the year 2255.
LAST_S = (1 << 53) / 1_000
#: Finished generators are looked for when there are so many, and when twice as many as were left.
MANY_GENERATORS = 64
#: How often a body that leaves the memory is told so.
MOST_REFUSALS = 100
Ts = TypeVarTuple("Ts")
Context = Any


class Evicted(BaseException):
    """Raised in a body that is taken out of memory: nothing that it does from here on is durable."""


class Host(Protocol):
    """What the loop tells of."""

    def timer_started(self, timer: "WorkflowTimer") -> None: ...

    def timer_cancelled(self, timer: "WorkflowTimer") -> None: ...

    def given_up(self, key: str) -> None:
        """Nobody waits for this operation any more."""

    def loop_exception(self, context: dict[str, Any]) -> None: ...

    def violated(self, error: NondeterministicCall) -> None:
        """Something outside the body's control was tried; may be called from any thread."""

    @property
    def pump_started(self) -> Callable[[], None]:
        """Called when a pump begins."""

    @property
    def pump_ended(self) -> Callable[[], None]:
        """Called when it is over, however it ended."""


class WorkflowFuture(asyncio.Future[Any]):
    """A future whose place in a set does not depend on its address. One of an operation tells that it was given up."""

    def __init__(self, *, loop: "WorkflowLoop", key: str | None = None) -> None:
        self._hash = loop.scope().future_hash() if key is None else None
        super().__init__(loop=loop)
        self._key, self._host = key, loop.host

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = crc32(str(self._key).encode())
        return self._hash

    def cancel(self, msg: Any = None) -> bool:
        canceled = super().cancel(msg)
        if canceled and self._key is not None:
            self._host.given_up(self._key)
        return canceled


class WorkflowTask(asyncio.Task[Any]):
    """A task with a scope. Its hash comes from the order in which its parent made it, the same on every replay."""

    scope: Scope

    def __init__(self, coro: Any, *, loop: "WorkflowLoop", name: str | None = None, **more: Any) -> None:
        parent = tasks.current_task(loop)
        scope = parent.scope if isinstance(parent, WorkflowTask) else loop.root
        self.scope = scope.child()
        if name is not None:
            self.scope.rename(name)
        super().__init__(coro, loop=loop, name=name or self.scope.path.rstrip("/"), **more)

    def __hash__(self) -> int:
        return self.scope.hash

    def set_name(self, value: object) -> None:
        """asyncio names a task right after it has made it."""
        self.scope.rename(str(value))
        super().set_name(value)


class RootTask(WorkflowTask):
    """The body itself: its steps have no task in their path."""

    def __init__(self, coro: Any, *, loop: "WorkflowLoop", **more: Any) -> None:
        self.scope = loop.root
        asyncio.Task.__init__(self, coro, loop=loop, name="root", **more)

    def set_name(self, value: object) -> None:
        asyncio.Task.set_name(self, value)


def _hash_of_gathering(future: Any) -> int:
    """gather() makes futures of a class of its own; their first use is in a deterministic order."""
    try:
        return int(future._stepwell_hash)
    except AttributeError:
        loop = future._loop
        number = loop.scope().future_hash() if isinstance(loop, WorkflowLoop) else object.__hash__(future)
        future._stepwell_hash = number
        return number


#: What the stubs of asyncio do not tell of.
_inner: Any = tasks
_inner._GatheringFuture.__hash__ = _hash_of_gathering


class WorkflowTimer(events.TimerHandle):
    """A durable timer: `key` names it in the journal, `due_ms` is when."""

    __slots__ = ("due_ms", "key")

    key: str
    due_ms: int
    _scheduled: bool


class WorkflowLoop(asyncio.AbstractEventLoop):
    """Give it a `host`; then `pump` it whenever something was delivered."""

    def __init__(self, host: Host, now_s: float) -> None:
        self.host, self.now_s = host, now_s
        self.root = Scope("", None, 0)
        self.live: dict[WorkflowTask, None] = {}  # asyncio itself keeps weak references only
        self.evicting = False
        self._refused = 0
        self._ready: deque[events.Handle] = deque()
        self._running = False
        self._generators: dict[int, Any] = {}
        self._many = MANY_GENERATORS
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    # ── what asyncio uses ────────────────────────────────────────────────────────────────────────────────────────

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        return

    def time(self) -> float:
        """Seconds since the epoch, as the journal has them; moves when an entry is delivered."""
        return self.now_s

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self.evicting

    def create_future(self) -> WorkflowFuture:
        return WorkflowFuture(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, **more: Any) -> Any:
        if self.evicting:
            coro.close()
            self.refuse_evicted()
            never: Any = WorkflowTask(coro, loop=self, name=name)
            never._log_destroy_pending = False
            return never
        more.pop("eager_start", None)
        return self._keep(WorkflowTask(coro, loop=self, name=name, **more))

    def create_root(self, coro: Any, **more: Any) -> RootTask:
        """The task of the body."""
        root = RootTask(coro, loop=self, **more)
        self._keep(root)
        return root

    def _keep(self, task: WorkflowTask) -> WorkflowTask:
        """Tasks of many runs have the same hashes, so they must not be in one set: that of asyncio is left at once."""
        _inner._unregister_task(task)
        self.live[task] = None
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: Any) -> None:
        self.live.pop(task, None)

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        if not self.evicting:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None
    ) -> events.Handle:
        if events._get_running_loop() is not self:
            error = NondeterministicCall(
                "another thread calls into the workflow, so its result would not be the same on a replay",
                hint="Do the work of that thread in a step: await ctx.step(...).",
            )
            self.host.violated(error)
            raise error
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None
    ) -> events.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None
    ) -> events.TimerHandle:
        return self.timer("~timer", when, callback, *args, context=context)

    def timer(self, name: str, when: float, callback: Any, *args: Any, context: Context = None) -> WorkflowTimer:
        """A timer with a name of its own; one that is due already needs no entry in the journal."""
        if not when <= LAST_S:
            raise ValueError(f"a timer cannot wait until {when}: the last time is the year 2255")
        handle = WorkflowTimer(when, callback, args, self, context)
        if self.evicting:
            return handle
        handle.due_ms = round(when * 1_000)
        if handle.due_ms <= round(self.now_s * 1_000):
            self._ready.append(handle)
            return handle
        handle.key = self.scope().key(name)
        handle._scheduled = True
        self.host.timer_started(handle)
        return handle

    def fired(self, timer: WorkflowTimer) -> None:
        """A timer's entry was delivered."""
        timer._scheduled = False
        self._ready.append(timer)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        if handle._scheduled and not self.evicting:  # one that was due at once is no timer of the journal
            self.host.timer_cancelled(handle)

    def scope(self) -> Scope:
        """Where the running task stands."""
        task = tasks.current_task(self)
        return task.scope if isinstance(task, WorkflowTask) else self.root

    def get_exception_handler(self) -> Any:
        return self._handler

    def set_exception_handler(self, handler: Any) -> None:
        self._handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.host.loop_exception(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.evicting:
            return
        if self._handler is None:
            self.host.loop_exception(context)
            return
        try:
            self._handler(self, context)
        except Exception as error:
            self.host.loop_exception({"message": "the handler of exceptions failed", "exception": error})

    def get_task_factory(self) -> None:
        return None

    async def shutdown_asyncgens(self) -> None:
        return

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        return

    # ── pumping ──────────────────────────────────────────────────────────────────────────────────────────────────

    def pump(self) -> None:
        """Runs what is ready until nothing is. Call it only from the worker's code, in the worker's thread.

        Raises RuntimeError when the body never gets idle, and whatever SystemExit or KeyboardInterrupt goes through it.
        """
        ready = self._ready
        if not ready:
            return
        outer, outer_task, before = self._enter()
        left = PUMP_BUDGET
        try:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                    left -= 1
                    if left <= 0:
                        raise RuntimeError(
                            f"the workflow ran {PUMP_BUDGET:,} callbacks without waiting for anything durable: "
                            "is it a loop over asyncio.sleep(0)?"
                        )
        finally:
            self._leave(outer, outer_task, before)

    def inside(self, act: Callable[[], object]) -> None:
        """Acts as if the loop were running, without running what gets ready."""
        outer, outer_task, before = self._enter()
        try:
            act()
        finally:
            self._leave(outer, outer_task, before)

    def _enter(self) -> tuple[Any, Any, Any]:
        """Python 3.14 has one running task a thread: it is left before this loop's tasks can be entered."""
        if self._running:
            raise RuntimeError("the workflow's loop is running already")
        outer = events._get_running_loop()
        outer_task = tasks.current_task(outer) if outer is not None else None
        if outer_task is not None:
            _inner._leave_task(outer, outer_task)
        before = generators.hook(WorkflowLoop)
        events._set_running_loop(self)
        self._running = True
        self.host.pump_started()
        return outer, outer_task, before

    def _leave(self, outer: Any, outer_task: Any, before: Any) -> None:
        """The hooks for generators stay while another loop runs: that one takes them with it when it ends."""
        self.host.pump_ended()
        self._running = False
        events._set_running_loop(outer)
        if outer is None and before is not None:
            generators.unhook(before)
        if outer_task is not None:
            _inner._enter_task(outer, outer_task)

    def keep_generator(self, generator: Any) -> None:
        """Kept, so that its `finally` never runs at a moment that the garbage collector chooses."""
        if len(self._generators) >= self._many:
            self._generators = {key: one for key, one in self._generators.items() if one.ag_frame is not None}
            self._many = max(MANY_GENERATORS, 2 * len(self._generators))
        self._generators[id(generator)] = generator

    def refuse_evicted(self) -> None:
        """Raises Evicted; not for ever, since a body may catch all and ask again: then it waits, and is left there."""
        self._refused += 1
        if self._refused <= MOST_REFUSALS:
            raise Evicted

    # ── leaving memory ───────────────────────────────────────────────────────────────────────────────────────────

    def evict(self) -> None:
        """Closes every coroutine, the youngest task first. Cleanup blocks run, but nothing they do is durable."""
        if self._running:
            raise RuntimeError("a workflow cannot be evicted by its own body")
        self.evicting = True
        self._ready.clear()
        tasks, begun = list(self.live), list(self._generators.values())
        if tasks or begun:
            self.inside(lambda: _close_all(tasks, begun))
        self._ready.clear()
        self.live.clear()
        self._generators.clear()
        self.host = _Gone()  # the host has this loop, and its body's task: no cycles, they would stay for long


class _Gone:
    """The host of a loop that was evicted: what is still told is nobody's."""

    def timer_started(self, timer: WorkflowTimer) -> None: ...

    def timer_cancelled(self, timer: WorkflowTimer) -> None: ...

    def given_up(self, key: str) -> None: ...

    def loop_exception(self, context: dict[str, Any]) -> None: ...

    def violated(self, error: NondeterministicCall) -> None: ...

    def pump_started(self) -> None: ...

    def pump_ended(self) -> None: ...


def _close_all(live: list[WorkflowTask], generators: list[Any]) -> None:
    for task in reversed(live):
        known: Any = task
        known._log_destroy_pending = False
        _close(known.get_coro())
    for generator in reversed(generators):  # closing a task does not reach what its async generators await
        if (awaited := generator.ag_await) is not None and hasattr(awaited, "close"):
            _close(awaited)


def _close(coro: Any) -> None:
    for _ in range(100):  # a body may catch GeneratorExit and await again
        try:
            coro.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                continue
        except BaseException:  # noqa: S110 - what user code raises while it is thrown away is nobody's
            pass
        break


def _denial(name: str) -> Callable[..., NoReturn]:
    def denied(self: WorkflowLoop, *args: object, **more: object) -> NoReturn:
        raise NondeterministicCall(
            f"loop.{name}() does real I/O or depends on threads, which a workflow's body must not",
            hint="Move it into a step: await ctx.step(...).",
        )

    denied.__name__ = name
    return denied


def _async_denial(name: str) -> Callable[..., Any]:
    deny = _denial(name)

    async def denied(self: WorkflowLoop, *args: object, **more: object) -> NoReturn:
        deny(self)

    denied.__name__ = name
    return denied


def _deny_the_rest() -> None:
    """Whatever of a loop is not built above is refused: by default, also what later Pythons add."""
    for name in dir(asyncio.AbstractEventLoop):
        if not name.startswith("__") and name not in WorkflowLoop.__dict__:
            known = getattr(asyncio.AbstractEventLoop, name)
            waits = inspect.iscoroutinefunction(known) and name != "run_in_executor"
            setattr(WorkflowLoop, name, (_async_denial if waits else _denial)(name))


_deny_the_rest()

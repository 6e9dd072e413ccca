"""One attempt of a user's function: a task on the event loop, or a call on a thread (source: API, rule 7).

Nothing that user code raises leaves it, `SystemExit` neither. A coroutine that is told to stop may clean up for a
while; then it is left behind, as a thread is that cannot be ended.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any

from stepwell.model.errors import Limited
from stepwell.worker import threads
from stepwell.worker.threads import Job, Threads

log = logging.getLogger("stepwell.worker")


class TimedOut(Exception):
    """The attempt took longer than it may."""

    did = "took longer than"

    def __init__(self, limit_ms: int) -> None:
        super().__init__(f"it {self.did} {limit_ms / 1_000:g} s")
        self.limit_ms = limit_ms


class Silent(TimedOut):
    """The attempt sent no heartbeat for longer than it may."""

    did = "sent no heartbeat for"


class Stopped(Exception):
    """The attempt was told to stop, and did."""


Ended = Callable[[Any, BaseException | None], None]
_MACHINERY = (__file__, threads.__file__)


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a call of it gives a coroutine, as far as can be seen before."""
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


class Attempt:
    """Runs `call` at once. `ended` hears once what came of it: the value, or None and an exception.

    The exception is what the function raised, `TimedOut`, or `Stopped` after a `stop`. `grace_s` is how long it may go
    on after either.
    """

    __slots__ = ("_call", "_ended", "_grace_s", "_job", "_limit_ms", "_loop", "_task", "_timer", "_why", "context")

    def __init__(
        self,
        call: Callable[[], Any],
        ended: Ended,
        *,
        loop: asyncio.AbstractEventLoop,
        threads: Threads | None,
        context: Context,
        limit_ms: int | None = None,
        grace_s: float = 5.0,
    ) -> None:
        self._call, self._ended, self._loop, self.context = call, ended, loop, context
        self._limit_ms, self._grace_s = limit_ms, grace_s
        self._why: Exception | None = None
        self._task: asyncio.Task[Any] | None = None
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        if limit_ms is not None:
            self._timer = loop.call_later(max(limit_ms, 0) / 1_000, self._too_late)
        if threads is None:
            self._as_task(self._guarded(call))
            return
        try:
            self._job = threads.run(lambda: context.run(call), self._returned)
        except Limited as limited:
            loop.call_soon(self._end, None, limited)

    def stop(self) -> None:
        """Tells it to stop."""
        self._stop(Stopped("it was told to stop"))

    def time_out(self, why: TimedOut) -> None:
        """It is out of time for a reason that somebody else keeps."""
        self._stop(why)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop, or is out of time. May be asked from any thread."""
        return self._why is not None

    def abandon(self) -> None:
        """Nobody waits for it any more: it is told to stop, and `ended` is not called."""
        self._ended = _nobody
        if self._task is not None:
            self._task.cancel()
        self._leave()

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def _as_task(self, coroutine: Any) -> None:
        self._task = self._loop.create_task(coroutine, context=self.context)
        self._task.add_done_callback(self._done)

    async def _guarded(self, call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """asyncio lets SystemExit through to the loop, which would end the worker."""
        try:
            return await call(), None
        except (Exception, SystemExit) as error:
            return None, own(error)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._end(None, asyncio.CancelledError("the step was cancelled from inside"))
        elif (error := task.exception()) is not None:
            self._end(None, error)
        else:
            self._end(*task.result())

    # ── on a thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def _returned(self, value: Any, error: BaseException | None) -> None:
        self._job = None
        if error is not None:
            own(error)
        elif inspect.iscoroutine(value):  # a lambda around an `async def`
            if self._why is None:
                self._as_task(self._guarded(lambda: value))
                return
            value.close()
        self._end(value, error)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _too_late(self) -> None:
        assert self._limit_ms is not None
        self.time_out(TimedOut(self._limit_ms))

    def _stop(self, why: Exception) -> None:
        if self._why is not None or self._ended is _nobody:
            return
        self._why = why
        self._no_timer()
        if self._task is not None:
            self._task.cancel()
        grace_s = self._grace_s if self._task is not None or isinstance(why, Stopped) else 0.0
        self._timer = self._loop.call_later(grace_s, self._give_up)

    def _give_up(self) -> None:
        """A thread's timeout comes at once: it is not asked, so it needs no grace."""
        if self._ended is not _nobody:
            log.warning("a step goes on although it was told to stop: it is left behind")
            self._leave()
            self._end(None, self._why)

    def _leave(self) -> None:
        self._no_timer()
        if self._job is not None:
            self._job.abandon()

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, value: Any, error: BaseException | None) -> None:
        """What was told to stop has stopped, unless it got ready all the same; out of time is out of time."""
        ended, self._ended = self._ended, _nobody
        self._no_timer()
        if self._why is not None and (error is not None or isinstance(self._why, TimedOut)):
            ended(None, self._why)
        else:
            ended(value, error)


def own(error: BaseException) -> BaseException:
    """An exception with the traceback of the user's code alone."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _MACHINERY:
        trace = trace.tb_next
    return error.with_traceback(trace)


def _nobody(value: Any, error: BaseException | None) -> None:
    """Hears what nobody waits for."""

"""A bounded pool of threads for code that blocks. Nobody can end a thread, so one that is given up is replaced.

`concurrent.futures` will not do: a thread of its pool that hangs keeps its place for ever, and keeps the process from
ending. These are daemons, and one that was abandoned takes no place.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from stepwell.model.errors import Limited

Ended = Callable[[Any, BaseException | None], None]
#: How long a thread without work stays.
IDLE_S = 10.0


class Job:
    """A call that is in the pool; `abandon` it when nobody waits for it any more."""

    __slots__ = ("_pool", "abandoned", "begun", "call", "ended", "loop")

    def __init__(self, pool: "Threads", call: Callable[[], Any], ended: Ended, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self.call, self.ended, self.loop = pool, call, ended, loop
        self.begun = self.abandoned = False

    def abandon(self) -> None:
        """Its end is told to nobody. If it has begun its thread goes on, and another takes its place."""
        self._pool.abandon(self)


class Threads:
    """Runs at most `limit` calls at once, the others in order; with at most `lost_limit` abandoned ones beside them."""

    def __init__(self, limit: int, *, lost_limit: int = 1_000, name: str = "stepwell-sync") -> None:
        self._limit, self._lost_limit, self._name = limit, lost_limit, name
        self._jobs: deque[Job] = deque()
        self._free = threading.Condition()
        self._threads = self._idle = 0
        #: How many threads run what nobody waits for any more.
        self.abandoned = 0
        self._closed = False

    def run(self, call: Callable[[], Any], ended: Ended) -> Job:
        """Calls it on a thread; `ended` is called on this event loop with its value, or None and what it raised.

        Raises `Limited` when too many threads hang.
        """
        job = Job(self, call, ended, asyncio.get_running_loop())
        with self._free:
            if self.abandoned >= self._lost_limit:
                raise Limited(
                    f"{self.abandoned:,} threads hang in calls that were given up",
                    hint="Look for steps that block past their timeout, give what they wait for a timeout of its own, "
                    "and start the worker again.",
                )
            self._jobs.append(job)
            self._free.notify()
            self._enough()
        return job

    async def call(self, call: Callable[[], Any]) -> Any:
        """The same for a coroutine, with its context; one that is cancelled abandons the call."""
        ended: asyncio.Future[tuple[Any, BaseException | None]] = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()
        job = self.run(lambda: context.run(call), lambda value, error: ended.set_result((value, error)))
        try:
            value, raised = await ended
        except asyncio.CancelledError:
            job.abandon()
            raise
        if raised is not None:
            raise raised
        return value

    def _enough(self) -> None:
        """Sees to it that there are threads for the calls that wait; one that was woken still counts as idle."""
        if len(self._jobs) > self._idle and self._threads < self._limit + self.abandoned:
            self._threads += 1
            try:
                threading.Thread(target=self._main, name=self._name, daemon=True).start()
            except RuntimeError as error:
                self._threads -= 1
                if not self._threads:
                    self._jobs.clear()
                    raise Limited(f"no thread can be started: {error}", hint="Raise the limit of processes.") from None

    def close(self) -> None:
        """Ends the threads without work; nobody is waited for."""
        with self._free:
            self._closed = True
            self._free.notify_all()

    def abandon(self, job: Job) -> None:
        with self._free:
            if job.abandoned:
                return
            job.abandoned = True
            if job.begun:
                self.abandoned += 1
                self._enough()

    def _main(self) -> None:
        while (job := self._next()) is not None:
            value, error = _result(job.call)
            with self._free:
                if job.abandoned:
                    self.abandoned -= 1
                    continue
                job.begun = False  # over: from here on nothing of it can be abandoned
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                job.loop.call_soon_threadsafe(_tell, job, value, error)

    def _next(self) -> Job | None:
        """The next call; None when this thread is one too many, or has had nothing to do for a while."""
        with self._free:
            while True:
                if self._threads > self._limit + self.abandoned:
                    break
                while self._jobs:
                    job = self._jobs.popleft()
                    if not job.abandoned:
                        job.begun = True
                        return job
                if self._closed:
                    break
                self._idle += 1
                waited = self._free.wait(IDLE_S)
                self._idle -= 1
                if not waited and not self._jobs:
                    break
            self._threads -= 1
            return None


def _tell(job: Job, value: Any, error: BaseException | None) -> None:
    if not job.abandoned:
        job.ended(value, error)


def _result(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:
        return None, error

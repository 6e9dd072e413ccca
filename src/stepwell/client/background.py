"""An event loop on a thread of its own, for programs that have none."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from stepwell.engine.inside import refuse_inside
from stepwell.model.errors import Invalid, StepwellError, Unavailable

T = TypeVar("T")
_END: Any = object()
#: Within so many seconds a thread begins, or it never will.
STARTS_S = 10.0


class Background:
    """Runs coroutines for threads that wait for them. `stop` ends what is under way; it may be started again."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._process, self._ready, self._over = 0, threading.Event(), threading.Event()

    def check_stopped(self) -> None:
        """Raises `Invalid` when it was started."""
        if self._thread is not None:
            raise Invalid("it is open already", hint="One `with` is enough; its handles and views share it.")

    def start(self) -> None:
        """Starts the thread, and returns when its loop runs. Raises `Invalid` when it does already."""
        self.check_stopped()
        ready = self._ready = threading.Event()
        self._over.clear()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="stepwell-blocking", daemon=True)
        try:
            self._thread.start()
        finally:  # an interrupt may come when it runs already, and is not yet known to
            ready.wait(STARTS_S)

    def _main(self, ready: threading.Event) -> None:
        async def wait() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._stop.wait()

        try:
            asyncio.run(wait())
        finally:
            self._over.set()

    def stop(self) -> None:
        """Ends the loop; calls of other threads that are under way raise `Unavailable`."""
        if self._thread is not None and self.is_own:
            self._ready.wait(STARTS_S)
        thread, loop, stop = self._thread, self._loop, self._stop
        self._thread = self._loop = self._stop = None
        if thread is None or loop is None or stop is None:
            return
        if self.is_own:
            loop.call_soon_threadsafe(stop.set)
            self._over.wait()
            with suppress(RuntimeError):  # its start was interrupted
                thread.join()

    @property
    def runs(self) -> bool:
        """Whether it was started in this process, and not stopped."""
        return self._loop is not None and self.is_own

    @property
    def is_own(self) -> bool:
        """Whether this process started it: a fork has the memory of its parent, but none of its threads."""
        return self._process == os.getpid()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine answers or raises. An interrupt of the waiting thread cancels it."""
        loop, thread = self._loop, self._thread
        try:
            refuse_inside()
            self._check(loop, thread)
        except StepwellError:
            work.close()
            raise
        assert loop is not None, "it has been checked"
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("it was closed while this call was under way", hint=_UNKNOWN) from None
        except BaseException:
            future.cancel()
            raise

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous iterator, one by one."""

        async def following() -> T:
            return await anext(items, _END)

        try:
            while (item := self.do(following())) is not _END:
                yield item
        finally:
            if isinstance(items, AsyncGenerator) and self._loop is not None:
                self.do(_closed(items))

    def _check(self, loop: asyncio.AbstractEventLoop | None, thread: threading.Thread | None) -> None:
        if loop is None:
            raise Unavailable("it is not open", hint="Make the call inside of `with Stepwell(url, app) as sw:`.")
        if not self.is_own:
            hint = "Open another Stepwell in the child process; all may use one database."
            raise Unavailable("it was opened by the process that this one was forked from", hint=hint)
        if thread is threading.current_thread():
            hint = "Code that runs on the event loop awaits the contexts' own calls, or stepwell.Stepwell."
            raise Invalid("a blocking call on its own event loop would wait for itself", hint=hint)


async def _closed(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


_UNKNOWN = "It may have been carried out: look at the run before you do it again."

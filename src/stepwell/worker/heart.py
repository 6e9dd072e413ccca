"""The heartbeats of a worker: they extend its leases from a thread of their own (source: KERNEL, Residents).

Code of the user may block the event loop for longer than a lease. Nothing here waits for that loop: the heart submits
to the lane itself, takes its answers itself, and only calls over to the loop what tasks are to be told.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from stepwell.engine.clock import steady_s
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.worker.held import Held

log = logging.getLogger("stepwell.worker")
#: How many leases one command extends: a batch of the lane stays short.
LEASES_PER_COMMAND = 1_000
#: How often it is looked at whether an answer that does not come is still wanted.
LOOK_S = 0.5


class Heart:
    """Beats for everything that is held, as often as news should be heard of; never later than a third of the lease.

    `on_now` is called on the loop with the store's time (ms) and the steady second when it was certainly not later.
    """

    def __init__(
        self, engine: Engine, worker: str, on_now: Callable[[int, float], None] = lambda now, at: None
    ) -> None:
        self._engine, self._worker, self._on_now = engine, worker, on_now
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=self._main, name="stepwell-heart", daemon=True)
        self._thread.start()

    @property
    def beats(self) -> bool:
        """Whether its thread lives."""
        return self._thread is not None and self._thread.is_alive()

    async def stop(self) -> None:
        """Ends it, within about `LOOK_S`: the loop goes on meanwhile, since what it answers may be waited for."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def add(self, held: Held) -> None:
        """From any thread: this lease is extended from now on."""
        with self._lock:
            self._held.add(held)

    def drop(self, held: Held) -> None:
        """From any thread: this lease has ended."""
        with self._lock:
            self._held.discard(held)

    def _main(self) -> None:
        settings = self._engine.settings
        every_s = min(settings.poll_ms, settings.beat_ms) / 1_000
        while not self._stopping.wait(every_s):
            with self._lock:
                held = [one for one in self._held if not one.lost]
            for start in range(0, len(held), LEASES_PER_COMMAND):
                try:
                    self._beat(held[start : start + LEASES_PER_COMMAND])
                except Exception as error:
                    log.warning("no heartbeat: %s", error)

    def _beat(self, held: list[Held]) -> None:
        asked = Asked(held)
        answer: Future[c.Beats] = Future()
        self._engine.lanes.submit(asked.command(self._worker, self._engine.settings.lease_ms), answer, None)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(asked, answer.result(LOOK_S))
                return

    def _take(self, asked: "Asked", answer: c.Beats) -> None:
        told, at = asked.told(answer), steady_s()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is to be told any more
                self._loop.call_soon_threadsafe(self._tell, told, answer.now, at)

    def _tell(self, told: list[Callable[[], None]], now: int, at: float) -> None:
        self._on_now(now, at)
        tell(told)


class Asked:
    """A `Sync` on its way: for whom, and when it was sent."""

    def __init__(self, held: Iterable[Held]) -> None:
        self._held = [(one, one.beat()) for one in held]
        self.at = steady_s()

    def command(self, worker: str, lease_ms: int) -> c.Sync:
        return c.Sync(worker, tuple(beat for _, beat in self._held), lease_ms)

    def told(self, answer: c.Beats) -> list[Callable[[], None]]:
        """Extends the leases, and gives what is to be called on the event loop."""
        told: list[Callable[[], None]] = []
        for (one, beat), synced in zip(self._held, answer.tasks, strict=True):
            until = self.at + (synced.lease_until - answer.now) / 1_000
            if synced.error is not None or not one.extended(until):
                told.append(one.lose)
                continue
            if beat.details is not None and beat.details is one.details and not synced.untold:
                one.details = None
            if synced.dropped is not None:
                log.warning("run %s: the details of a heartbeat are not kept: %s", one.leased.run.id, synced.dropped)
            if synced.cancel and not one.asked_to_cancel:
                told.append(one.ask_to_cancel)
            if synced.missed:
                told.append(partial(one.on_news, synced.missed))
        return told


def tell(told: Iterable[Callable[[], None]]) -> None:
    """Calls each, whatever the others do."""
    for call in told:
        try:
            call()
        except StepwellError:
            log.exception("news of a run went wrong")

"""A task that a worker holds: its lease, the count of its writes, and what it was told about it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stepwell.engine.clock import steady_s
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Ended, Stale, Unavailable
from stepwell.model.rows import Entry

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
#: What it may take until it is noticed that a lease runs out.
NOTICE_MS = 1_000


class LeaseLost(Exception):
    """The task is somebody else's now: write nothing more."""


class Held:
    """One leased task. `cancel` is set when it should stop; `lost` says that it must not write any more.

    `ends_at` is when its lease ends, in seconds of this machine's steady clock, counted from the moment before it was
    asked for: the answer may have been long under way. `on_extended` is told of each later end, on the thread of the
    heartbeats. `on_told` is called when the task is to stop, `on_news` with what others wrote to its journal, both on
    the event loop. `waits` says that it has nothing to do now, so that it takes no slot from another.
    """

    def __init__(self, engine: Engine, leased: c.Leased, asked_at: float) -> None:
        self.leased, self._engine = leased, engine
        self.cancel = asyncio.Event()
        self.lost = self.asked_to_cancel = self.handing_back = self.waits = False
        self.ends_at = asked_at + (leased.lease_until - leased.now) / 1_000
        self.on_extended: Callable[[float], None] = _nobody
        self.on_told: Callable[[], None] = _nobody
        self.on_waits: Callable[[bool], None] = _nobody
        self.on_news: Callable[[list[Entry]], None] = _nobody
        #: The last write that was answered.
        self.n = 0
        #: The last deliverable entry that was seen, for the heartbeats.
        self.seen = leased.seen
        #: JSON that the next attempt can read, until a heartbeat has told it.
        self.details: str | None = None
        #: What the task needs to stop, since it must have stopped before somebody else may have it.
        self.spare_s = min(engine.settings.kill_grace_ms + NOTICE_MS, engine.settings.lease_ms // 4) / 1_000

    @property
    def lease(self) -> c.Lease:
        return self.leased.lease

    def beat(self) -> c.Beat:
        """What the next heartbeat says of it."""
        return c.Beat(self.leased.lease, self.seen, self.details)

    def extended(self, ends_at: float) -> bool:
        """The lease ends later. False for one that was over in the meantime: what it allowed is being stopped."""
        if self.lost or self.over:
            return False
        self.ends_at = ends_at
        self.on_extended(ends_at)
        return True

    @property
    def over(self) -> bool:
        """Whether it is time to stop, as the lease runs out, as far as this worker can know."""
        return steady_s() > self.ends_at - self.spare_s

    def rest(self, waits: bool) -> None:
        """It only waits now, or it has something to do again."""
        if waits != self.waits:
            self.waits = waits
            self.on_waits(waits)

    def lose(self) -> None:
        """Somebody else has the task: stop, and write nothing."""
        if not self.lost:
            self.lost = True
            self._tell()

    def ask_to_cancel(self) -> None:
        """The run was asked to cancel."""
        if not self.asked_to_cancel:
            self.asked_to_cancel = True
            self._tell()

    def hand_back(self) -> None:
        """The worker shuts down: stop, and give the lease back."""
        self.handing_back = True
        self._tell()

    def _tell(self) -> None:
        self.cancel.set()
        self.on_told()

    def hears_nothing(self) -> None:
        """Nobody wants to be told any more."""
        self.on_told = self.on_news = self.on_extended = _nobody

    async def finish(self, outcome: c.Completed | c.Canceled | c.Continued, sends: c.Emission | None = None) -> c.Done:
        """Ends the task well; `sends` are the events of its result."""
        return await self._numbered(lambda n: c.Finish(self.lease, n, outcome, sends))

    async def fail(
        self,
        error: str,
        *,
        retry: bool = True,
        result: str | None = None,
        result_status: str | None = None,
        sends: c.Emission | None = None,
    ) -> c.Done:
        """Ends the attempt badly; what it `sends` goes out only if no attempt follows."""
        return await self._numbered(lambda n: c.Fail(self.lease, n, error, retry, result, result_status, sends))

    async def release(self, delay_ms: int = 0, *, broken: bool = False) -> c.Done:
        """Gives the lease back; `broken` if nothing could be done with the task."""
        return await self._numbered(lambda n: c.Release(self.lease, n, delay_ms, broken))

    async def tell_details(self) -> None:
        """Tells the details that no heartbeat has told yet: the next attempt is to have the last ones."""
        if self.details is not None:
            await self.insist(self._tell_details, Unavailable)

    async def _tell_details(self) -> None:
        sync = c.Sync(self._engine.new_id(), (self.beat(),), self._engine.settings.lease_ms)
        if (await self._engine.submit(sync)).tasks[0].untold:
            raise Unavailable("the run is being written elsewhere")
        self.details = None

    async def _numbered(self, command: Callable[[int], c.Command]) -> c.Done:
        """Sends a numbered write; a lost answer is repeated with the same number, never guessed.

        A refused write changed nothing, so its number is the next one's.
        """
        done: c.Done = await self.send(command(self.n + 1))
        self.n += 1
        return done

    async def send(self, command: c.Command) -> Any:
        """Sends a command under this lease until it is answered or the lease is over. Raises `LeaseLost`."""
        try:
            return await self.insist(lambda: self._engine.submit(command), Unavailable)
        except (Stale, Ended) as gone:
            self.lose()
            raise LeaseLost(str(gone)) from gone

    async def insist(self, act: Callable[[], Awaitable[T]], *passing: type[Exception]) -> T:
        """Acts again and again while it fails with an error that passes. Raises `LeaseLost` when the lease is over."""
        pause_s = FIRST_PAUSE_S
        while not self.lost and not self.over:
            try:
                return await act()
            except passing:
                await asyncio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - spreads retries, no secret
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        self.lose()
        raise LeaseLost(f"the lease of {self.leased.run.id} is over")


def _nobody(*told: object) -> None:
    return

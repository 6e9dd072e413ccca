"""Runs in memory that only wait: who stays how long, and when each has something to do (source: KERNEL, Residents)."""

import asyncio
import heapq
import itertools
from typing import Protocol

from stepwell.engine.clock import steady_s

#: A clock that goes back by less than this is smoothed, as in the kernel.
PUT_BACK_MS = 1_000
#: What is left of the time that runs linger when there is no room.
LEAST = 0.1
#: How many alarms that nobody wants any more may lie in the heap.
SPARE = 1_000


class Resident(Protocol):
    """A run in memory."""

    def park(self) -> None:
        """It has waited long enough here."""

    def ring(self) -> None:
        """The time has come that it asked for."""


class Clock:
    """The store's time as far as this worker can know: the last that it was told, and what has passed since.

    Never ahead of it: `tell` comes after the store has looked at its clock.
    """

    def __init__(self) -> None:
        self._ahead = 0.0

    def tell(self, now: int, at: float | None = None) -> None:
        """The store's clock said `now` (ms), before this machine's steady clock said `at` (s)."""
        ahead = now - (steady_s() if at is None else at) * 1_000
        if ahead > self._ahead or ahead < self._ahead - PUT_BACK_MS:
            self._ahead = ahead

    def now_ms(self) -> int:
        return int(self._ahead + steady_s() * 1_000)


class Alarms:
    """One timer of the loop for all runs: rings each when its time has come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Resident]] = []
        self._due: dict[Resident, int] = {}
        self._order = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._until = 0

    def set(self, resident: Resident, due: int | None) -> None:
        """Rings at `due` (ms), and not at an earlier one that was asked for; None: not at all."""
        if due is None:
            self._due.pop(resident, None)
        elif self._due.get(resident) != due:
            self._due[resident] = due
            heapq.heappush(self._heap, (due, next(self._order), resident))
            if len(self._heap) > SPARE + 2 * len(self._due):
                self._heap = [one for one in self._heap if self._due.get(one[2]) == one[0]]
                heapq.heapify(self._heap)
            if self._handle is None or due < self._until:
                self.look()

    def look(self) -> None:
        """Rings what is due, and sleeps until the next; also when the clock was put forward."""
        now, heap = self._clock.now_ms(), self._heap
        while heap and (heap[0][0] <= now or self._due.get(heap[0][2]) != heap[0][0]):
            due, _, resident = heapq.heappop(heap)
            if self._due.get(resident) == due:
                del self._due[resident]
                asyncio.get_running_loop().call_soon(resident.ring)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if heap:
            self._until = heap[0][0]
            self._handle = asyncio.get_running_loop().call_later(max(self._until - now, 1) / 1_000, self.look)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Residents:
    """Runs that only wait, the longest first. Each stays for `linger_ms`, less when it gets full; `limit` at most."""

    def __init__(self, linger_ms: int, limit: int) -> None:
        self._linger_s, self._limit = linger_ms / 1_000, limit
        self._since: dict[Resident, float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._since)

    @property
    def linger_s(self) -> float:
        """How long one stays that comes now."""
        room = 1 - len(self._since) / self._limit
        return 0.0 if self.draining else self._linger_s * min(1.0, max(LEAST, 2 * room))

    def add(self, resident: Resident) -> None:
        """It only waits from now on."""
        self._since.pop(resident, None)
        self._since[resident] = steady_s()
        if self._handle is None or len(self._since) > self._limit:
            self._look()

    def discard(self, resident: Resident) -> None:
        """It has something to do, or is gone."""
        self._since.pop(resident, None)

    def drain(self) -> None:
        """Keeps nobody any more."""
        self.draining = True
        if self._since:
            self._look()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        """Parks those who have waited long enough, and comes again when the next one has."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for resident, left_s in self._waited():
            if left_s > 0:
                self._handle = asyncio.get_running_loop().call_later(max(left_s, 0.001), self._look)
                return
            del self._since[resident]
            asyncio.get_running_loop().call_soon(resident.park)

    def _waited(self) -> "list[tuple[Resident, float]]":
        """The longest first, with how long it may still stay; no more than have to go, and the one after them."""
        now, found = steady_s(), list[tuple[Resident, float]]()
        over = len(self._since) - self._limit
        for index, (resident, since) in enumerate(self._since.items()):
            left_s = 0.0 if index < over else since + self.linger_s - now
            found.append((resident, left_s))
            if left_s > 0:
                break
        return found

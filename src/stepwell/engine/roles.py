"""Background roles: each a loop with a bounded wait. They submit internal commands and decide nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic

from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.store.port import Stamped

log = logging.getLogger("stepwell.roles")
#: A role that fails again and again, since the store is away for example, pauses so long at the most.
LONGEST_PAUSE_S = 5.0
#: What waits for an old transaction is looked at as often at the least.
LONGEST_WAIT_S = 1.0
#: What others have under their hands is asked for again after so long, and ever longer.
SOON_S, LONGEST_SOON_S = 0.002, 0.05
Submit = Callable[[c.Command], Awaitable[c.Worked]]


class Role:
    """A loop that does `work` and then waits until somebody calls `hint`, or for `wait_s` at the most."""

    name = "role"

    def __init__(self, *, wait_s: float) -> None:
        if wait_s <= 0:
            raise ValueError(f"wait_s must be positive, got {wait_s}")
        self.wait_s = wait_s
        self._hint = asyncio.Event()
        self._soon_s = SOON_S
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._stopping = False
        self._task = asyncio.create_task(self._loop(), name=f"stepwell-{self.name}")

    async def stop(self) -> None:
        self._stopping = True  # a cancel alone gets lost where something turns it into an error of its own
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def hint(self) -> None:
        """There may be something to do."""
        self._hint.set()

    async def work(self) -> float:
        """Does what there is to do; answers how many seconds to wait at the most."""
        raise NotImplementedError

    def _again(self, soon: bool) -> float:
        """How long to wait where all is done, or where others have the rest under their hands just now."""
        if not soon:
            self._soon_s = SOON_S
            return self.wait_s
        soon_s, self._soon_s = self._soon_s, min(self._soon_s * 2, LONGEST_SOON_S)
        return min(soon_s, self.wait_s)

    async def _loop(self) -> None:
        failures = 0
        while not self._stopping:
            self._hint.clear()
            try:
                wait_s = await self.work()
                failures = 0
            except Exception as error:
                failures += 1
                wait_s = self._failed(error, failures)
            if self._stopping:
                return
            try:
                async with asyncio.timeout(wait_s):
                    await self._hint.wait()
            except TimeoutError:
                continue

    def _failed(self, error: Exception, failures: int) -> float:
        """Says what went wrong, with the stack if it is news and a bug, and answers how long to wait: ever longer."""
        is_bug = not isinstance(error, Unavailable) and failures == 1
        log.warning("%s goes on after an error: %s", self.name, error, exc_info=error if is_bug else None)
        return min(self.wait_s * 2.0 ** min(failures - 1, 16), max(self.wait_s, LONGEST_PAUSE_S))


class Repeater(Role):
    """Submits internal commands until none has more to do, then waits; but not long for what others have just now."""

    def __init__(self, name: str, submit: Submit, *batch: c.Command, wait_s: float) -> None:
        super().__init__(wait_s=wait_s)
        self.name, self._submit, self._batch = name, submit, batch

    async def work(self) -> float:
        more = soon = True
        while more:
            replies = await asyncio.gather(*(self._submit(command) for command in self._batch))
            more, soon = any(reply.more for reply in replies), any(reply.soon for reply in replies)
        return self._again(soon)


class Promoter(Role):
    """Promotes blocked tasks of the keys that have got a free slot; without a hint, whatever key has one."""

    name = "promoter"

    def __init__(self, submit: Submit, *, wait_s: float) -> None:
        super().__init__(wait_s=wait_s)
        self._submit = submit
        self._freed: set[tuple[str, str, str]] = set()
        self._after = ("", "", "")
        self._all_at = float("-inf")

    def freed(self, keys: Iterable[tuple[str, str, str]]) -> None:
        """Leases of these keys (scope, pool, key) have ended."""
        self._freed.update(keys)
        self.hint()

    async def work(self) -> float:
        soon = bool(self._freed) and await self._promote()
        if monotonic() - self._all_at >= self.wait_s:
            worked = await self._submit(c.Promote(after=self._after))
            self._freed.update(worked.left)
            soon = soon or bool(worked.left)
            self._all_at, self._after = monotonic(), worked.after or ("", "", "")
        return self._again(soon)

    async def _promote(self) -> bool:
        """Promotes those of the freed keys; true if some have to come again, since others have their runs just now."""
        keys, self._freed = self._freed, set()
        try:
            keys = set((await self._submit(c.Promote(tuple(keys)))).left)
        finally:
            self._freed |= keys
        return bool(keys)


class Timekeeper(Role):
    """Fires timers to the millisecond: sleeps until the earliest due time, or until an earlier one is committed."""

    name = "timekeeper"

    def __init__(
        self,
        submit: Submit,
        next_due: Callable[[], Awaitable[int | None]],
        clock_ms: Callable[[], int],
        *,
        wait_s: float,
    ) -> None:
        super().__init__(wait_s=wait_s)
        self._submit, self._next_due, self._clock_ms = submit, next_due, clock_ms
        self._waits_until: int | None = None

    def due(self, at: int) -> None:
        """A task is due at `at`."""
        if self._waits_until is None or at < self._waits_until:
            self.hint()

    async def work(self) -> float:
        self._waits_until = None  # from here on, every timer that is set is news
        while (fired := await self._submit(c.Fire())).more:
            pass
        self._waits_until = due = await self._next_due()
        left_s = self.wait_s if due is None else (due - self._clock_ms()) / 1_000
        others_have_it = left_s <= 0 and not fired.count
        wait_s = self._again(others_have_it)
        return wait_s if others_have_it else max(0.001, min(self.wait_s, left_s))


class Stamper(Role):
    """Has changes given their positions, wherever a commit does not do it (see `store.port.Stamper`).

    `version` is a number in memory that changes with each commit that this process knows of. While it stands still, and
    nothing waits for a transaction to end, the store is not asked.
    """

    name = "stamper"

    def __init__(
        self, version: Callable[[], object], stamp: Callable[[], Awaitable[Stamped]], *, wait_s: float
    ) -> None:
        super().__init__(wait_s=wait_s)
        self._version, self._stamp = version, stamp
        self._seen: object = None

    async def work(self) -> float:
        version = self._version()
        if version == self._seen:
            return self.wait_s
        stamped = await self._stamp()
        while stamped.more:
            stamped = await self._stamp()
        if stamped.held_ms:  # who has the duty may stop doing it: so it is looked at again, when it has run out
            return stamped.held_ms / 1_000 + self.wait_s
        if stamped.waits_ms is None:
            self._seen = version
            return self.wait_s
        return min(max(self.wait_s, stamped.waits_ms / 4_000), LONGEST_WAIT_S)


class Watcher(Role):
    """Sees what other processes commit to the same store.

    `version` is a number in memory that changes with anybody's commit. Only when it has changed, the store is read for
    the number of commits that are not this engine's: one that is told beside the own ones would be late or early.
    """

    name = "watcher"

    def __init__(
        self,
        version: Callable[[], int],
        others: Callable[[], Awaitable[int]],
        on_change: Callable[[], None],
        *,
        wait_s: float,
    ) -> None:
        super().__init__(wait_s=wait_s)
        self._version, self._others, self._on_change = version, others, on_change
        self._seen: int | None = None
        self.count: int | None = None

    async def work(self) -> float:
        version = self._version()
        if version != self._seen:
            count = await self._others()
            if self.count is not None and count != self.count:
                self._on_change()
            self._seen, self.count = version, count
        return self.wait_s

"""Who works in a storm: all its places, kept up together, and nobody of them left behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from tests.crash.flow_processes import MARK, STEP_MARK, Guarded, marked
from tests.crash.places import Living, Place


class Seeded(Protocol):
    @property
    def seed(self) -> int: ...


class Storm(Protocol):
    """A storm, as its judge sees it."""

    @property
    def plan(self) -> Seeded: ...
    @property
    def report(self) -> object: ...
    async def rage(self) -> None: ...
    def clear(self) -> None: ...


S = TypeVar("S", bound=Storm)


def outlive(storm: S, judge: Callable[[S], None]) -> None:
    """A storm, and all that must be true after it; whoever is left is killed, also when it fails."""
    try:
        asyncio.run(storm.rage())
        judge(storm)
    finally:
        storm.clear()
    print(f"\nseed {storm.plan.seed}: {storm.report}")


def new_mark(seed: int) -> str:
    """What a storm's processes, and those that they start, have in their environment as `MARK`."""
    return f"{os.getpid()}-{seed}-{os.urandom(4).hex()}"


class Crew:
    """Places whose processes carry a mark."""

    def __init__(self, mark: str, places: Sequence[Place]) -> None:
        self._mark, self._places = mark, places
        self._stopped: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """As long as this lasts, somebody lives in each place; at last all end, each as it should."""
        keeping = [asyncio.create_task(place.keep()) for place in self._places]
        try:
            yield
        finally:
            for task in self._stopped:
                task.cancel()
            await asyncio.gather(*self._stopped, return_exceptions=True)
            for place in self._places:
                place.end()
            await asyncio.gather(*keeping)
        for place in self._places:
            assert not place.faults, (place.faults, place.log.read_text()[-8_000:])

    async def all_open(self) -> None:
        """Whoever was started last can be told to end, too."""
        while not all(place.is_open() for place in self._places):  # noqa: ASYNC110 - files of other processes
            await asyncio.sleep(0.05)

    def stop(self, place: Place, for_s: float) -> bool:
        """It stands still for a while; false when there is nobody now."""
        if (process := place.living) is None:
            return False
        process.send_signal(signal.SIGSTOP)
        self._stopped.append(asyncio.create_task(_go_on(process, for_s)))
        return True

    @property
    def guards(self) -> set[Guarded]:
        """The guards of all that were ended."""
        return set[Guarded]().union(*(place.guards for place in self._places))

    def leftovers(self, step_marks: set[str], patience_s: float = 5.0) -> list[object]:
        """Who is still there after `patience_s`: processes with its mark or one of its attempts', and guards."""
        ends = time.monotonic() + patience_s
        while True:
            guards = [one for one in self.guards if one.lives()]
            left: list[object] = [*marked(MARK, {self._mark}), *marked(STEP_MARK, step_marks), *guards]
            if not left or time.monotonic() > ends:
                return left
            time.sleep(0.05)

    def clear(self) -> None:
        """Kills whoever is left."""
        guards = [one.pid for one in self.guards if one.lives()]
        for pid in (*(pid for pid, _ in marked(MARK, {self._mark})), *guards):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _go_on(process: Living, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)


async def all_ended(db: Any) -> None:
    """Until every run has ended; none is held."""
    query = "select id, status, hold from run where status not in ('completed', 'failed', 'canceled')"
    while left := db.execute(query).fetchall():  # rows of other processes, no event of ours
        held = [one for one in left if one[2] is not None]
        assert not held, held
        await asyncio.sleep(0.1)

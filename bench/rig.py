"""What every subject uses: folders, event loops, engines, and turns that record steps."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from bench.machine import uvloop_version
from stepwell.engine.engine import Engine
from stepwell.engine.lane import Timings
from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted, raw
from stepwell.model.settings import Settings
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.local import open_store

T = TypeVar("T")
#: What every step records, ours and the floor's and the peer's.
PAYLOAD = '{"ok":true,"i":3,"v":"some result value"}'
BODY = StepCompleted(raw(PAYLOAD))
PHASES = ("begin", "load", "decide", "flush", "commit")


class Rig(Struct):
    """Where databases go, and how long a subject may take."""

    folder: Path
    quick: bool

    def pick(self, quick: T, full: T) -> T:
        """One amount for a quick run, another for a full one."""
        return quick if self.quick else full

    def fresh(self, name: str) -> Path:
        """The path of a database in an empty folder of its own."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder / "bench.sqlite"

    def loops(self) -> list[str]:
        """Which event loops there are."""
        return ["asyncio", "uvloop"] if uvloop_version() else ["asyncio"]


def run(work: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Runs on an event loop by its name."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


@asynccontextmanager
async def engine_on(place: Path | str) -> AsyncIterator[Engine]:
    """An engine as a server opens it: full sync, all roles. `place`: a file of SQLite, or an address."""
    async with Engine(open_store(place, Settings()) if isinstance(place, str) else SqliteStore(place)) as engine:
        yield engine


class Turn:
    """A leased workflow that records one step after the other, as a worker does."""

    def __init__(self, lease: c.Lease, seen: int) -> None:
        self.lease, self.seen, self.n = lease, seen, 0

    async def step(self, engine: Engine, drafts: int = 1) -> None:
        """One write of `drafts` steps, awaited until it is durable."""
        self.n += 1
        entries = tuple(c.Draft(BODY, f"main/step#{self.n}.{one}") for one in range(drafts))
        self.seen = (await engine.submit(c.Record(self.lease, self.n, self.seen, entries))).head

    async def steps(self, engine: Engine, count: int, took: list[float] | None = None, drafts: int = 1) -> None:
        """Steps in sequence; `took` gets the seconds of each write."""
        for _ in range(count):
            started = time.perf_counter()
            await self.step(engine, drafts)
            if took is not None:
                took.append(time.perf_counter() - started)


async def turns(engine: Engine, count: int, prefix: str = "bench") -> list[Turn]:
    """Starts and claims `count` workflows."""
    starts = (engine.submit(c.StartRun(id=f"{prefix}-{one}", name="bench", pool=prefix)) for one in range(count))
    await asyncio.gather(*starts)
    leased: list[Turn] = []
    while len(leased) < count:
        limit = min(1_000, count - len(leased))
        claimed = await engine.submit(
            c.Claim(worker="bench", request=engine.secret(), pools=(prefix,), limit=limit, lease_ms=1_800_000)
        )
        leased += [Turn(task.lease, task.seen) for task in claimed.tasks]
    return leased


def snapshot(timings: Timings) -> Timings:
    """Timings as they are now."""
    return Timings(timings.batches, timings.commands, *(getattr(timings, phase) for phase in PHASES))


def where(before: Timings, now: Timings, wall_s: float) -> str:
    """Which share of the wall time the lane spent in which phase, and how large its batches were."""
    shares = [f"{phase} {(getattr(now, phase) - getattr(before, phase)) / wall_s:.0%}" for phase in PHASES]
    batches = max(1, now.batches - before.batches)
    return f"lane: {' '.join(shares)}; batch {(now.commands - before.commands) / batches:.0f}"

"""Where workers of one test work: an engine on a store of its own, which may be told to refuse commands."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.engine.lane import no_fault
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Output, Run, Task
from stepwell.model.settings import Settings
from stepwell.worker.worker import Worker
from tests.support import assert_lawful, durable

S = TypeVar("S", bound="Site")
T = TypeVar("T")
PATIENCE_S = 20.0


class Site:
    """What workers do their work on, and what is looked at there."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.workers: list[Worker] = []
        #: The lane refuses these commands, as one whose queue is full does.
        self.away: tuple[type[c.Command], ...] = ()
        #: Every command that the lane was given.
        self.sent: list[c.Command] = []

    def close(self) -> None:
        """What is left to do when the workers have stopped."""

    async def run(self, run_id: str) -> Run:
        run = await self.engine.read(lambda reader: reader.run("main", run_id))
        assert run is not None
        return run

    async def until(self, run_id: str, fits: Callable[[Run], bool], patience_s: float = PATIENCE_S) -> Run:
        number = (await self.run(run_id)).no
        run = await self.engine.wait_run(number, fits, timeout_s=patience_s)
        assert run is not None
        return run

    async def end(self, run_id: str, patience_s: float = PATIENCE_S) -> Run:
        """The run when it has ended."""
        return await self.until(run_id, lambda run: run.terminal, patience_s)

    async def tasks(self, run_id: str) -> list[Task]:
        number = (await self.run(run_id)).no
        return await self.engine.read(lambda reader: reader.tasks_of(number))

    async def output(self, run_id: str) -> list[Output]:
        number = (await self.run(run_id)).no
        return await self.engine.read(lambda reader: reader.output(number, limit=100_000))


async def true(condition: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """What `condition` says as soon as it is true."""
    ends = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
        await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def opened(
    path: Path,
    make: Callable[[Engine], S],
    *,
    settings: Settings,
    clock_ms: Callable[[], int] = wall_ms,
    fault: Callable[[str], None] = no_fault,
) -> AsyncIterator[S]:
    """Opens one, stops its workers, closes it, and asks the doctor."""
    store = durable(path, sync="normal")
    with pytest.MonkeyPatch.context() as patch:
        async with Engine(store, settings=settings, clock_ms=clock_ms, fault=fault) as engine:
            made, submit = make(engine), engine.lanes.submit

            def gate(command: c.Command, *rest: Any) -> None:
                if isinstance(command, made.away):
                    raise Unavailable("the lane is away")
                made.sent.append(command)
                submit(command, *rest)

            patch.setattr(engine.lanes, "submit", gate)
            try:
                yield made
            finally:
                made.away = ()
                for worker in made.workers:
                    await worker.stop(drain_s=0)
                made.close()
    assert_lawful(durable(path), settings)

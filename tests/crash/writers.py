"""Writers that repeat what nobody answered, under the same ids, and remember what was answered: for servers that go."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.entries import SignalReceived
from stepwell.model.errors import Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Store, scan_all
from tests.support import assert_lawful

SETTINGS = Settings(poll_ms=200)
REPEAT_S = 0.02


class Writer:
    """Starts runs and signals them, one command after the other, until it is told to stop."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self._name = engine, name
        self.signaled: dict[str, int] = {}
        self.repeated = 0
        self._stopping, self._wrote = False, asyncio.Event()

    def stop(self) -> None:
        self._stopping = True

    async def write(self) -> None:
        while not self._stopping:
            run_id = f"{self._name}-{len(self.signaled)}"
            await self.insist(c.StartRun(run_id, "wf"))
            first = await self.insist(c.Signal(run_id, "one", "1", dedup="d1"))
            again = await self.insist(c.Signal(run_id, "one", "1", dedup="d1"))
            assert first.seq == again.seq
            self.signaled[run_id] = first.seq
            self._wrote.set()

    async def insist(self, command: c.Command) -> Any:
        """The answer of a command, which is sent again as long as nobody knows."""
        while True:
            try:
                return await self.engine.submit(command)
            except Unavailable:
                self.repeated += 1
                await asyncio.sleep(REPEAT_S)

    async def wrote(self, more: int) -> None:
        """Waits until it has written so many runs more."""
        wanted = len(self.signaled) + more
        async with asyncio.timeout(60):
            while len(self.signaled) < wanted:
                self._wrote.clear()
                await self._wrote.wait()


@asynccontextmanager
async def writing(stores: Sequence[Store]) -> AsyncIterator[list[Writer]]:
    """A writer on each store, each with an engine of its own; they end what they are at."""
    async with AsyncExitStack() as stack:
        writers = []
        for number, store in enumerate(stores):
            engine = await stack.enter_async_context(Engine(store, settings=SETTINGS))
            writers.append(Writer(engine, f"w{number}"))
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.write())
            try:
                yield writers
            finally:
                for writer in writers:
                    writer.stop()


def assert_all_there_once(store: Store, writers: list[Writer]) -> None:
    """Everything that was answered is there, nothing twice, and nothing that nobody asked for."""
    answered = {run_id: seq for writer in writers for run_id, seq in writer.signaled.items()}
    with closing(store.reader()) as reader:
        runs = {run.id: run for run in scan_all(reader)}
        assert answered.keys() <= runs.keys()
        assert len(runs) <= len(answered) + len(writers), "at most one of each is under way"
        for run_id, seq in answered.items():
            signals = [one for one in reader.entries(runs[run_id].no) if one.kind == SignalReceived.kind]
            assert [one.seq for one in signals] == [seq]
    assert_lawful(store)

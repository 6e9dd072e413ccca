"""Places of a storm whose processes start in some ms: a storm that kills one each second is not about that."""

import asyncio
import os
import subprocess
from contextlib import suppress
from typing import IO

from tests.crash.flow_storm import Keeper, Living
from tests.support.nursery import Fork

#: What a command says that is started while the database is away.
AWAY = (
    "error: cannot open postgresql",
    "error: cannot reach postgresql",
    "error: gave up after",
    "error: the store cannot be read",
    "error: the tables of sea cannot be brought up to date",
)


class Forked:
    """A fork as asyncio sees processes."""

    def __init__(self, process: "Fork[bytes]") -> None:
        self._process, self.pid = process, process.pid
        self.returncode: int | None = None

    async def wait(self) -> int:
        """Its status when it has ended."""
        with suppress(ProcessLookupError):  # it is gone already
            await _death(os.pidfd_open(self.pid))
        self.returncode = await asyncio.to_thread(self._process.wait)
        return self.returncode

    def send_signal(self, signal: int, /) -> None:
        self._process.send_signal(signal)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


async def _death(process: int) -> None:
    """Until a process is no more, by its descriptor, which is closed."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(process, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)


class Place(Keeper):
    """A place in the storm, in which a fork lives."""

    refused = 0

    def _may(self, code: int) -> bool:
        """Whoever starts while the database is away says so and ends: it is the supervisor's to start it again."""
        said = self.log.read_text().splitlines()[-3:]
        refused = code == 1 and any(line.startswith(AWAY) for line in said)
        self.refused += refused
        return refused

    async def _start(self, log: IO[bytes]) -> Living:
        fork = Fork[bytes](self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return Forked(fork)

"""Places of a storm: in each a process lives, and after its death the next one, until the place is closed."""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from tests.crash.flow_processes import Guarded, guards_of
from tests.support.nursery import Fork

#: What a command says that is started while the database is away.
AWAY = (
    "error: cannot open postgresql",
    "error: cannot reach postgresql",
    "error: gave up after",
    "error: the store cannot be read",
    "error: the tables of sea cannot be brought up to date",
)


class Living(Protocol):
    """A process, of asyncio or of another kind."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def send_signal(self, signal: int, /) -> None: ...


class Place:
    """One that is kept up. A death that was not our doing is a fault."""

    def __init__(self, folder: Path, name: str, argv: list[str], env: dict[str, str]) -> None:
        self.name, self._argv, self._env = name, argv, env
        self.log = folder / f"{name}.log"
        self.process: Living | None = None
        self.faults: list[str] = []
        self.guards: set[Guarded] = set()
        self._killed = False
        self._ending = asyncio.Event()

    @property
    def kind(self) -> str:
        """Its name without its number."""
        return self.name.rstrip("0123456789")

    async def keep(self) -> None:
        """Until `end`."""
        while not self._ending.is_set():
            self._killed = False
            with self.log.open("ab") as log:
                self.process = await self._start(log)
            code = await self.process.wait()
            expected = -signal.SIGKILL if self._killed else 0 if self._ending.is_set() else None
            if code != expected and not self._may(code):
                self.faults.append(f"{self.name} ended with {code}, not {expected}")
                await asyncio.sleep(0.2)

    def _may(self, code: int) -> bool:
        """Whether it may end so, though nobody asked it to."""
        return False

    async def _start(self, log: IO[bytes]) -> Living:
        return await asyncio.create_subprocess_exec(
            *self._argv, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )

    @property
    def living(self) -> Living | None:
        """Its process, unless there is nobody now."""
        return None if self.process is None or self.process.returncode is not None or self._killed else self.process

    def is_open(self) -> bool:
        """Whether it has opened the database: from then on it catches SIGTERM."""
        if (process := self.living) is None:
            return False
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(caught & 1 << (signal.SIGTERM - 1))
        return False

    def kill(self) -> bool:
        """SIGKILL; false when there is nobody now."""
        if (process := self.living) is None:
            return False
        self._killed = True
        self.guards |= guards_of(process.pid)
        process.kill()
        return True

    def end(self) -> None:
        """SIGTERM, and no successor."""
        self._ending.set()
        if (process := self.living) is not None:
            self.guards |= guards_of(process.pid)
            process.terminate()


class ForkedPlace(Place):
    """Its processes start in some ms, and may be refused: a storm that kills one each second is not about that."""

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

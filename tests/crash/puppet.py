"""A process with an engine, that does what its parent says on stdin and can be made to die or freeze at a fault point.

Each request is a line of base64 of a pickled tuple, each answer likewise. An answer to a command is written the moment
the command is answered, a line each: what the parent read was acknowledged, whatever happens to the process after.
"""

import asyncio
import base64
import os
import pickle
import resource
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, cast

from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.model.settings import Settings
from stepwell.store.sqlite.store import SqliteStore
from tests.crash.tally import Tally
from tests.support import durable, on_postgres


def pack(thing: object) -> bytes:
    """A line for the pipe."""
    return base64.b64encode(pickle.dumps(thing)) + b"\n"


def unpack(line: bytes) -> Any:
    """What a line says."""
    return pickle.loads(base64.b64decode(line))


class Faults:
    """Sends this process a signal at the n-th time, counted from now, that it comes to a point."""

    def __init__(self) -> None:
        self.point, self.left, self.signal = "", 0, signal.SIGKILL
        self.lose, self.full = "", False
        self.begun = 0

    def at(self, point: str) -> None:
        self.begun += point == "begun"
        if point != self.point:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)
            time.sleep(0.05)  # a stop is delivered before this ends


class Connection:
    """A connection that may lose the answer to a commit, which happened or did not, or find its disk full."""

    def __init__(self, real: sqlite3.Connection, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "begin immediate" and self._faults.full:
            self._real.execute("pragma max_page_count = 1")  # no longer than it is
        if statement != "commit" or not self._faults.lose:
            return self._real.execute(statement, *values)
        lost = self._faults.lose
        self._faults.lose = lost if "for ever" in lost else ""
        if lost.startswith("after"):
            self._real.execute(statement)
        else:
            self._real.execute("rollback")
        self._faults.at("lost")
        error = sqlite3.OperationalError(f"disk I/O error ({lost} commit)")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error


class Store(SqliteStore):
    """A SQLite store whose faults can be chosen."""

    def __init__(self, path: Path, faults: Faults, busy_ms: int) -> None:
        super().__init__(path, busy_ms=busy_ms)
        self.faults = faults

    def connect(self) -> sqlite3.Connection:
        return cast("sqlite3.Connection", Connection(super().connect(), self.faults))


class Puppet:
    """The side of the child."""

    def __init__(self, path: Path, settings: Settings, roles: bool, now: int | None, busy_ms: int) -> None:
        self.faults = Faults()
        self.store = durable(path) if on_postgres() else Store(path, self.faults, busy_ms)
        self.fixed = now
        self.engine = Engine(
            self.store,
            settings=settings,
            clock_ms=self.now,
            mutations=Tally(),
            fault=self.faults.at,
            roles=roles,
            prepare=Tally.prepare,
        )

    def now(self) -> int:
        return wall_ms() if self.fixed is None else self.fixed

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.engine:
            tell(("here", os.getpid()))
            while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
                verb, *rest = unpack(line)
                await getattr(self, f"do_{verb}")(*rest)

    async def do_submit(self, commands: tuple[c.Command, ...]) -> None:
        await asyncio.gather(*(self._one(n, command) for n, command in enumerate(commands)))

    async def _one(self, n: int, command: c.Command) -> None:
        sent = time.monotonic()
        try:
            reply = await self.engine.submit(command)
        except StepwellError as refusal:
            reply = refusal
        tell(("reply", n, reply, time.monotonic() - sent))
        if n == 0:
            self.faults.at("answered")

    async def do_clock(self, now: int) -> None:
        self.fixed = now
        tell(("done",))

    async def do_fault(self, point: str, left: int, number: signal.Signals) -> None:
        self.faults.point, self.faults.left, self.faults.signal = point, left, number
        tell(("done",))

    async def do_lose(self, how: str) -> None:
        self.faults.lose = how
        tell(("done",))

    async def do_fill(self, how: str) -> None:
        """Makes the disk full: no file of this process may grow any more, or the database may not."""
        if how == "file size":
            assert isinstance(self.store, SqliteStore)
            wal = os.stat(f"{self.store.path}-wal").st_size  # noqa: PTH116 - the loop has nothing else to do
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 20_000, resource.RLIM_INFINITY))
        else:
            self.faults.full = True
        tell(("done",))

    async def do_state(self) -> None:
        lane = self.engine.lanes.first
        tell(("state", self.engine.trouble, self.faults.begun, lane.timings.longest_begin))


def tell(answer: tuple[Any, ...]) -> None:
    sys.stdout.buffer.write(pack(answer))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.setswitchinterval(1.0)  # commands that are sent together are in the queue before the lane looks: one batch
    config = unpack(sys.argv[1].encode())
    asyncio.run(Puppet(**config).serve())

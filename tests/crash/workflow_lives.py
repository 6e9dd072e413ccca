"""Lives of a process that runs one errand: each is a fork of a process that has imported all, killed at a fault point.

A life after the first one has a clock that is ahead, so that the leases of the dead are over.
"""

import asyncio
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self
from unittest.mock import patch

from stepwell import Conflict
from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.model.settings import Settings
from stepwell.worker import host
from tests.crash.puppet import Faults
from tests.crash.support import start_child
from tests.crash.workflow_app import LOG, errand, open_sea, order

AHEAD_MS = 600_000


class Lives:
    """The parent's side: lives on a file, one after the other."""

    def __init__(self) -> None:
        self._process = start_child("tests.crash.workflow_lives", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def live(self, path: Path, log: Path, point: str = "", left: int = 0, ahead_ms: int = 0) -> int:
        """Lives until the errand is done, or until the `left`-th time at `point`: the exit status."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\t{log}\t{point}\t{left}\t{ahead_ms}\n".encode())
        process.stdin.flush()
        return int(process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


async def live(path: Path, faults: Faults, ahead_ms: int) -> None:
    """Starts the errand and gives it its order, as one does who does not know whether it was done before."""
    with patch.object(host, "Engine", partial(Engine, fault=faults.at)):
        async with open_sea(path, Settings(), clock_ms=lambda: wall_ms() + ahead_ms) as sw:
            run = await sw.options(id="errand").start(errand)
            with suppress(Conflict):  # it has ended: nobody heard of it
                await run.signal(order, "bread and milk", key="first")
            await run.result(timeout=30)


def fork(path: str, log: str, point: str, left: str, ahead_ms: str) -> int:
    """One life; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ[LOG] = log
            faults = Faults()
            faults.point, faults.left = point, int(left)
            asyncio.run(live(Path(path), faults, int(ahead_ms)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(fork(*line.rstrip("\n").split("\t")), flush=True)

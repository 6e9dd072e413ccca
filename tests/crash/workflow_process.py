"""The processes of a workflow storm: one that works, and one that starts voyages until all are acknowledged.

From when it has opened the database, it ends in order at SIGTERM; that it catches the signal tells that it has.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from pathlib import Path

from stepwell import Stepwell
from tests.crash.workflow_app import arrived, open_sea, short_leases, voyage

LEASE_MS = 2_000


class Ledger:
    """The starts that were acknowledged; each line is one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.known = len(set(os.read(self._fd, 1 << 20).split()))

    def write(self, line: str) -> None:
        os.write(self._fd, f"{line}\n".encode())


async def start(sw: Stepwell, ledger: Ledger, count: int, seconds: float) -> None:
    """Starts all of them; those that an earlier life has started come first, and again."""
    for number in range(count):
        if number >= ledger.known:
            await asyncio.sleep(random.uniform(0, 2 * seconds / count))
        mine = sw.options(id=f"voyage-{number}", on_complete=arrived, context=number)
        run = await mine.start(voyage, number)
        ledger.write(run.id)


async def main(verb: str, folder: Path, *rest: str) -> None:
    told = asyncio.Event()
    async with open_sea(folder / "sea.sqlite", short_leases(LEASE_MS), worker=verb == "work") as sw:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        if verb == "start":
            await start(sw, Ledger(folder / "acknowledged"), int(rest[0]), float(rest[1]))
        await told.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))

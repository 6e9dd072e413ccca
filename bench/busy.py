"""A server process of the bench: opens the app on a database, and works when it is told. Started by `postgres`.

`python -m bench.busy URL STEPS` says "ready", then, for each line of its input, how many steps a second it made.
"""

import asyncio
import os
import sys
import time

from bench import programs
from bench.machine import uvloop_version
from bench.rig import run
from stepwell import Stepwell
from stepwell.model.settings import settings_from


async def work(url: str, steps: int) -> None:
    """Chains at once, as often as it is asked to."""
    loop = asyncio.get_running_loop()
    async with programs.opened(url, settings=settings_from(os.environ)) as sw:
        print("ready", flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(await together(sw, steps), flush=True)


async def together(sw: Stepwell, steps: int) -> float:
    """Steps a second of a hundred workflows at once."""
    started = time.perf_counter()
    runs = await asyncio.gather(*(sw.start(programs.chain, steps) for _ in range(programs.AT_ONCE)))
    await asyncio.gather(*(one.result() for one in runs))
    return programs.AT_ONCE * steps / (time.perf_counter() - started)


if __name__ == "__main__":
    run(work(sys.argv[1], int(sys.argv[2])), "uvloop" if uvloop_version() else "asyncio")

"""The app of the crowd: tasks that hold a slot of a pool for a while and write down when; others cost a token."""

import asyncio
import os
import time

import msgspec
from msgspec import Struct

from stepwell import App, Context, Pool

#: The variable with the path of the file that tasks write to.
LOG = "CROWD_LINES"
LIMIT, RATE = 7, 30

tight = Pool("tight", LIMIT, per_key=1)
metered = Pool("metered", rate=f"{RATE}/s")
app = App("crowd")


class Line(Struct):
    """A task begins to hold its slot, or ends. `at`: seconds on a clock that all processes of a machine have."""

    run: str
    begins: bool
    at: float
    pid: int


def note(run: str, begins: bool) -> None:
    """One write, which outlives a SIGKILL."""
    line = Line(run, begins, time.monotonic(), os.getpid())
    fd = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(fd)


async def held(run: str, seconds: float) -> None:
    note(run, True)
    await asyncio.sleep(seconds)
    note(run, False)


@app.workflow(pool=tight)
async def hold(ctx: Context, seconds: float) -> None:
    await ctx.step("hold", held, ctx.run_id, seconds)


@app.workflow
async def plain(ctx: Context) -> None:
    """Needs no slot."""


@app.workflow(pool=metered)
async def tick(ctx: Context) -> None:
    """Costs a token."""

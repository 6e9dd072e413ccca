"""A run that has ended leaves nothing that only the garbage collector finds: it would look through all others for it.

One that leaves the memory while it waits leaves its task and what that awaits, which know each other.
"""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.worker.held import Held
from stepwell.worker.turns import Hosted
from stepwell.workflow.context import Context
from stepwell.workflow.instance import Instance
from stepwell.workflow.loop import WorkflowLoop
from stepwell.workflow.turn import Turn

from .bodies import NEVER_PARKS, note
from .hall import hall
from .loops import on_a_loop
from .site import true

KINDS = Held | Hosted | Turn | Instance | WorkflowLoop


async def works(ctx: Context) -> list[str]:
    found = await asyncio.gather(*(ctx.step(note) for _ in range(3)))
    await ctx.sleep(0.01)
    return found


async def waits(ctx: Context) -> int:
    await ctx.step(note)
    return await ctx.wait_for_signal("go", int)


@contextmanager
def uncollected() -> Iterator[list[object]]:
    """What of a run the block left for the collector."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [one for one in gc.garbage if isinstance(one, KINDS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@on_a_loop
async def test_a_run_that_has_ended_leaves_no_garbage(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        it.work()
        done, waiting = it.workflow(works), it.workflow(waits)
        await it.result(await it.start(done))
        with uncollected() as left:
            assert await it.result(await it.start(done)) == ["x"] * 3
            run_id = await it.start(waiting)
            await true(lambda: len(it.turns[0].residents) == 1)
            await it.signal(run_id, "go", 7)
            assert await it.result(run_id) == 7
            await true(lambda: not it.workers[0]._held())
        assert left == []

"""A batch leaves nothing that only the garbage collector can find: it would look through all runs in memory for it."""

import asyncio
import gc
from typing import Any

from stepwell.engine.engine import Engine
from stepwell.kernel.unit import Table, Unit
from stepwell.model import commands as c
from stepwell.store.memory import MemoryStore


def left() -> list[Any]:
    return [one for one in gc.get_objects() if isinstance(one, Unit | Table)]


def test_a_batch_leaves_no_garbage() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), roles=False) as engine:
            gc.collect()
            known = left()  # what other tests hold
            gc.disable()
            try:
                for number in range(5):
                    await engine.submit(c.StartRun(f"r{number}", "n", "{}", requires="n"))
                await engine.submit(c.Sweep())  # one that changes nothing
                await engine.submit(c.StartRun("last", "n", "{}", requires="n"))
            finally:
                gc.enable()
            units = [one for one in left() if isinstance(one, Unit) and all(one is not other for other in known)]
            assert len(units) <= 1, "the lane's own frame may hold one"

    asyncio.run(main())

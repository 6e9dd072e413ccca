"""DBOS, measured by its own public API. Runs in a virtual environment of its own; started by `peer`.

`python peer_dbos.py URL STEPS CALLERS EACH` says as JSON what it reached, and what its database was set to. Imports
nothing of ours, and DBOS by name, since it is not among the things that this repository is checked with.
"""

import asyncio
import json
import sys
import time
from importlib import import_module
from importlib.metadata import version
from typing import Any

RESULT = {"ok": True, "i": 3, "v": "some result value"}


class Peer:
    """Workflows of DBOS; `each` steps in every one of `callers` that run at once."""

    def __init__(self, url: str, steps: int, callers: int, each: int) -> None:
        module: Any = import_module("dbos")
        self.dbos, self.steps, self.callers, self.each = module.DBOS, steps, callers, each
        config = {"name": "peer", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"}
        self.dbos(config=config)
        self.received: dict[str, float] = {}
        self._register()
        self.dbos.launch()
        self.dbos.register_queue("bench")

    def _register(self) -> None:
        """Workflows are plain functions there."""
        step = self.dbos.step()(one_step)

        async def chain(count: int) -> int:
            for _ in range(count):
                await step()
            return count

        async def trivial() -> dict[str, object]:
            return RESULT

        async def waiting(topic: str) -> None:
            await self.dbos.recv_async(topic, timeout_seconds=60)
            self.received[topic] = time.perf_counter()

        self.chain, self.trivial, self.waiting = (self.dbos.workflow()(one) for one in (chain, trivial, waiting))

    async def sequential(self) -> float:
        """Steps a second of one workflow."""
        began = time.perf_counter()
        await self.chain(self.steps)
        return self.steps / (time.perf_counter() - began)

    async def some(self) -> float:
        """Steps a second of ten workflows at once."""
        return await self._together(10)

    async def many(self) -> float:
        """Steps a second of many workflows at once."""
        return await self._together(self.callers)

    async def _together(self, callers: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(self.chain(self.each) for _ in range(callers)))
        return callers * self.each / (time.perf_counter() - began)

    async def direct(self) -> float:
        """Trivial workflows a second, many at once."""
        began = time.perf_counter()
        await asyncio.gather(*(self.trivial() for _ in range(self.callers)))
        return self.callers / (time.perf_counter() - began)

    async def queued(self) -> float:
        """Trivial workflows a second through a queue."""
        began = time.perf_counter()
        handles = await asyncio.gather(
            *(self.dbos.enqueue_workflow_async("bench", self.trivial) for _ in range(self.callers))
        )
        await asyncio.gather(*(handle.get_result() for handle in handles))
        return self.callers / (time.perf_counter() - began)

    async def start_to_result(self) -> float:
        """Seconds of a workflow of one step, alone."""
        began = time.perf_counter()
        await self.chain(1)
        return time.perf_counter() - began

    async def signal(self, topic: str) -> float:
        """Seconds from the send to the resumed workflow."""
        handle = await self.dbos.start_workflow_async(self.waiting, topic)
        await asyncio.sleep(0.3)
        began = time.perf_counter()
        await self.dbos.send_async(handle.workflow_id, RESULT, topic)
        await handle.get_result()
        return self.received[topic] - began

    def settings(self) -> dict[str, object]:
        """What DBOS's own connections have: asked of its engine."""
        instance: Any = import_module("dbos._dbos")._get_dbos_instance()
        engine = instance._sys_db.engine
        command, names = SETTINGS[engine.dialect.name]
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            return {name: driver.execute(f"{command} {name}").fetchone()[0] for name in names}


#: What makes a commit durable, and the version.
SETTINGS = {
    "sqlite": ("pragma", ("journal_mode", "synchronous")),
    "postgresql": ("show", ("server_version", "fsync", "synchronous_commit")),
}


async def one_step() -> dict[str, object]:
    return RESULT


async def measure(peer: Peer) -> dict[str, Any]:
    """Three rounds of each."""
    await peer.chain(5)
    rates: dict[str, Any] = {}
    for name in ("sequential", "some", "many", "direct", "queued"):
        rates[name] = [await getattr(peer, name)() for _ in range(3)]
    rates["start_to_result"] = [await peer.start_to_result() for _ in range(30)]
    rates["signal"] = [await peer.signal(f"topic-{one}") for one in range(7)]
    return rates


if __name__ == "__main__":
    subject = Peer(sys.argv[1], *map(int, sys.argv[2:5]))
    told = asyncio.run(measure(subject))
    told["about"] = {"dbos": version("dbos"), **subject.settings()}
    print(json.dumps(told))
    subject.dbos.destroy()

"""Subject `slots`: 200 flow steps in 16 slots of one worker, next to their bare processes 16 at a time."""

import asyncio
import time
from collections.abc import Iterator

from bench.flowstep import NOW, bare, ended, package, tools
from bench.report import Row
from bench.rig import Rig, run
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.package import Flow
from stepwell.model.settings import Settings
from stepwell.worker.local import Local, open_local
from stepwell.worker.steps import StepHandler
from stepwell.worker.worker import Worker

STEPS, SLOTS = 200, 16


def measure(rig: Rig) -> Iterator[Row]:
    """In rounds: the floor, and a worker that starts when all events are there."""
    for runner in ("command", "python"):
        yield from run(_rows(rig, runner))


async def _rows(rig: Rig, runner: str) -> list[Row]:
    path = rig.fresh("slots")
    flow = package(path.parent / "flows" / "bench", runner)
    floor: list[float] = []
    ours: list[float] = []
    async with open_local(f"sqlite:///{path}", path.parent, settings=Settings()) as local:
        for one in range(rig.pick(3, 9)):
            events = [
                parse_event({"id": f"{one}-{n}", "type": "bench", "payload": {}}, now_iso=NOW) for n in range(STEPS)
            ]
            floor.append(STEPS / await _bare(flow, events))
            ours.append(STEPS / await _worker(local, events))
    share = [mine / theirs for mine, theirs in zip(ours, floor, strict=True)]
    return [
        Row(f"floor: bare processes, 16 at a time, {runner}", "steps/s", floor),
        Row(f"200 steps in 16 slots, {runner}", "steps/s", ours, "claim, step with its guard, output, finish"),
        Row(f"... / the floor, {runner}", "", share),
    ]


async def _bare(flow: Flow, events: list[FlowEvent]) -> float:
    """Seconds for all of them."""
    free = asyncio.Semaphore(SLOTS)

    async def one(event: FlowEvent) -> None:
        async with free:
            await bare(flow, event)

    began = time.perf_counter()
    await asyncio.gather(*map(one, events))
    return time.perf_counter() - began


async def _worker(local: Local, events: list[FlowEvent]) -> float:
    """Seconds from the worker's start to the last end."""
    accepted = await asyncio.gather(*map(local.flows.dispatch, events))
    steps = StepHandler(local.flows, tools=tools())
    worker = Worker(local.engine, {"step": steps}, slots=SLOTS, requires=steps.requires)
    began = time.perf_counter()
    worker.start()
    await asyncio.gather(*(ended(local, one.run_ids[0]) for one in accepted))
    took = time.perf_counter() - began
    await worker.stop()
    return took

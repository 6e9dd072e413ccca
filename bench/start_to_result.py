"""Subject `start_to_result`: what one caller waits for on an idle engine."""

import asyncio
import time
from collections.abc import Iterator

from bench.floor import Floor
from bench.report import Row, at_most, latencies
from bench.rig import BODY, PAYLOAD, Rig, engine_on, run, turns
from stepwell.engine.engine import Engine
from stepwell.model import commands as c

DONE = c.Completed(PAYLOAD)


def measure(rig: Rig) -> Iterator[Row]:
    """Every repetition takes its turn with two commits of the floor."""
    yield from run(_rows(rig), rig.loops()[-1])


async def _rows(rig: Rig) -> list[Row]:
    count = rig.pick(200, 1_000)
    floor = Floor(rig.fresh("latency-floor"))
    two: list[float] = []
    took: dict[str, list[float]] = {"fused": [], "step": [], "separate": [], "parked": []}
    async with engine_on(rig.fresh("latency")) as engine:
        for one in range(count):
            two.append(floor.one_row(2))
            took["fused"].append(await _fused(engine, f"fused-{one}"))
            took["step"].append(await _fused(engine, f"step-{one}", step=True))
            took["separate"].append(await _through_queue(engine, f"queue-{one}"))
            took["parked"].append(await _signal(engine, one))
    floor.close()
    return [
        latencies("floor: two commits of one entry", two),
        latencies("start fused with its lease, finish", took["fused"], "2 commits", at_most(1.5)),
        latencies("start fused, a step, finish", took["step"], "3 commits", at_most(1.5)),
        latencies("start, claim after the hint, finish", took["separate"], "3 commits"),
        latencies("signal to claimed: parked, 10 steps to replay", took["parked"], "2 commits", at_most(3)),
    ]


async def _fused(engine: Engine, run_id: str, *, step: bool = False) -> float:
    began = time.perf_counter()
    claim_for = c.ClaimFor("bench", 120_000, engine.secret())
    leased = (await engine.submit(c.StartRun(id=run_id, name="bench", claim_for=claim_for))).claim
    assert leased is not None, "nothing else is ready, so the start brings the lease"
    if step:
        await engine.submit(c.Record(leased.lease, 1, leased.seen, (c.Draft(BODY, "main/step#1"),)))
    await engine.submit(c.Finish(leased.lease, 1 + step, DONE))
    return time.perf_counter() - began


async def _through_queue(engine: Engine, run_id: str) -> float:
    """A caller starts; a worker that waits for the hint claims and finishes."""
    hint = engine.ready_hint()
    worker = asyncio.create_task(_claim_one(engine, hint))
    await asyncio.sleep(0)
    began = time.perf_counter()
    await engine.submit(c.StartRun(id=run_id, name="bench"))
    task = await worker
    await engine.submit(c.Finish(task.lease, 1, DONE))
    return time.perf_counter() - began


async def _claim_one(engine: Engine, hint: asyncio.Event) -> c.Leased:
    """Claims after each hint until there is something: a hint may be early, late or for nothing."""
    async with asyncio.timeout(10):
        while True:
            await hint.wait()
            hint.clear()
            if tasks := (await engine.submit(c.Claim(worker="bench", request=engine.secret()))).tasks:
                engine.drop_hint(hint)
                return tasks[0]


async def _signal(engine: Engine, one: int) -> float:
    """From the signal until a worker has the run again, with its journal."""
    (turn,) = await turns(engine, 1, f"parked-{one}")
    await turn.step(engine, drafts=10)
    await engine.submit(c.Park(turn.lease, turn.n + 1, turn.seen, ("signal:go",)))
    hint = engine.ready_hint()
    worker = asyncio.create_task(_claim_one(engine, hint))
    await asyncio.sleep(0)
    began = time.perf_counter()
    await engine.submit(c.Signal(f"parked-{one}-0", "go", PAYLOAD))
    task = await worker
    took = time.perf_counter() - began
    assert len(task.journal) > 10, "the claim brings the journal"
    await engine.submit(c.Finish(task.lease, 1, DONE))
    return took

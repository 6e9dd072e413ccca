"""Subject `flowstep`: a flow step over the bare process that it runs, in pairs: bare, ours, bare, ours."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.intake import flow
from bench.report import Row, at_most, latencies
from bench.rig import Rig, run
from stepwell.flows.context import Runtime, step_environ, step_stdin
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Flow
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import run_step
from stepwell.model.settings import Settings
from stepwell.worker.local import Local, open_local

NOW = "2026-01-01T00:00:00.000Z"
RUNTIME = Runtime(run_id="run-1", attempt_id="run-1.1.1")


def measure(rig: Rig) -> Iterator[Row]:
    """The same script with the same context on stdin; once alone, once as a step, once from event to result."""
    for loop in rig.loops():
        yield from run(_rows(rig, loop), loop)


async def _rows(rig: Rig, loop: str) -> list[Row]:
    path = rig.fresh("flowstep")
    root = flow(path.parent / "flows" / "bench")
    manifest, count = load_flow(root), rig.pick(60, 300)
    bare: list[float] = []
    step: list[float] = []
    whole: list[float] = []
    async with open_local(f"sqlite:///{path}", path.parent, settings=Settings(), slots=1) as local:
        for one in range(count + 5):
            event = parse_event({"id": f"{loop}-{one}", "type": "bench", "payload": {"i": one}}, now_iso=NOW)
            bare.append(await _bare(root, manifest, event))
            step.append(await _step(manifest, event))
            whole.append(await _event(local, event))
    bare, step, whole = bare[5:], step[5:], whole[5:]  # the first ones load what stays loaded
    over = [ours - floor for ours, floor in zip(step, bare, strict=True)]
    over_whole = [ours - floor for ours, floor in zip(whole, bare, strict=True)]
    return [
        latencies(f"floor: the bare process, {loop}", bare),
        latencies(f"run_step over the bare process, {loop}", over, "", at_most(5)),
        latencies(f"event to result over the bare process, {loop}", over_whole, "accept, claim, step, output, finish"),
    ]


async def _bare(root: Path, manifest: Flow, event: FlowEvent) -> float:
    step = manifest.steps[0]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        str(root / "exec" / "hello.sh"),
        cwd=root,
        env=step_environ(step, event, RUNTIME, os.environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, _ = await process.communicate(step_stdin(manifest, step, event, RUNTIME))
    took = time.perf_counter() - began
    assert b"FLOW_RESULT" in out, out
    return took


async def _step(manifest: Flow, event: FlowEvent) -> float:
    began = time.perf_counter()
    outcome = await run_step(
        manifest,
        manifest.steps[0],
        event,
        runtime=RUNTIME,
        environ=os.environ,
        tools=Tools(dirs=(), search_path=os.defpath),
        on_output=lambda _stream, _text: None,
        cancel=asyncio.Event(),
        kill_grace_ms=1_000,
    )
    took = time.perf_counter() - began
    assert outcome.result is not None, outcome.error
    return took


async def _event(local: Local, event: FlowEvent) -> float:
    """From the dispatch of an event until its run is seen to have ended."""
    began = time.perf_counter()
    accepted = await local.flows.dispatch(event)
    run_id = accepted.run_ids[0]
    found = await local.engine.read(lambda reader: reader.run("main", run_id))
    assert found is not None
    ended = await local.engine.wait_run(found.no, lambda one: one.terminal, timeout_s=30)
    took = time.perf_counter() - began
    assert ended is not None
    assert ended.status == "completed", ended.error
    return took

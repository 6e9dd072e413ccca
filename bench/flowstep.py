"""Subject `flowstep`: a flow step over the bare process that it runs, in pairs; ours and the floor are first in turn.

The bare process has the command line, the environment and the context that the step's runner gives it.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from bench.report import Row, at_most, latencies, number, quantile
from bench.rig import Rig, run
from stepwell.flows.context import Runtime, step_environ, step_stdin
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.executors.guard import Guard
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Flow
from stepwell.flows.runners import RUNNERS
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import run_step
from stepwell.model.settings import Settings
from stepwell.worker.local import Local, open_local

NOW = "2026-01-01T00:00:00.000Z"
RUNTIME = Runtime(run_id="run-1", attempt_id="run-1.1.1")
RESULT = 'FLOW_RESULT {"status":"completed","message":"hello"}'
WARM = 3
#: By runner: the script's name and text. Each reads its context, as a real one does, and answers.
SCRIPTS = {
    "command": ("hello.sh", f"#!/bin/sh\ncat > /dev/null\necho '{RESULT}'\n"),
    "python": ("hello.py", f"import sys\nsys.stdin.read()\nprint('{RESULT}')\n"),
    "bun": ("hello.ts", f"await Bun.stdin.text();\nconsole.log('{RESULT}');\n"),
}


def measure(rig: Rig) -> Iterator[Row]:
    """Each runner on asyncio; the command on the other event loop as well, and from event to result."""
    for runner in SCRIPTS:
        yield from run(_rows(rig, runner, "asyncio"))
    for loop in rig.loops()[1:]:
        yield from run(_rows(rig, "command", loop), loop)


def tools() -> Tools:
    """As a worker in this folder finds them."""
    return Tools(dirs=(Path.cwd(),), search_path=os.environ.get("PATH", os.defpath))


def package(root: Path, runner: str) -> Flow:
    """A flow `bench` with one step of this runner, for events of type bench."""
    name, text = SCRIPTS[runner]
    root.mkdir(parents=True)
    (root / name).write_text(text)
    (root / name).chmod(0o755)
    step = f'[[steps]]\nname = "hello"\nrunner = "{runner}"\nscript = "{name}"\n[steps.trigger]\ntype = "bench"\n'
    (root / "flow.toml").write_text(f'name = "bench"\nversion = 1\n{step}')
    return load_flow(root)


async def _rows(rig: Rig, runner: str, loop: str) -> list[Row]:
    path = rig.fresh("flowstep")
    flow = package(path.parent / "flows" / "bench", runner)
    count = WARM + rig.pick(20, 100)
    async with open_local(f"sqlite:///{path}", path.parent, settings=Settings(), slots=1) as local:
        ways: dict[str, Callable[[FlowEvent], Awaitable[float]]] = {
            "bare": partial(bare, flow), "step": partial(_step, flow, Guard()), "whole": partial(_event, local)
        }  # fmt: skip
        took: dict[str, list[float]] = {way: [] for way in ways}
        for one in range(count):
            event = parse_event({"id": f"{loop}-{one}", "type": "bench", "payload": {"i": one}}, now_iso=NOW)
            for way in list(ways)[:: 1 if one % 2 else -1]:
                took[way].append(await ways[way](event))
    warm = {way: samples[WARM:] for way, samples in took.items()}  # the first ones load what stays loaded
    return _report(warm, f"{runner}, {loop}")


def _report(took: Mapping[str, list[float]], where: str) -> list[Row]:
    over, over_whole = (
        [ours - floor for ours, floor in zip(took[way], took["bare"], strict=True)] for way in ("step", "whole")
    )
    return [
        latencies(f"floor: the bare process, {where}", took["bare"]),
        latencies(f"run_step over the bare process, {where}", over, _quiet(took, "step"), at_most(5)),
        latencies(f"event to result over it, {where}", over_whole, _quiet(took, "whole")),
    ]


def _quiet(took: Mapping[str, list[float]], way: str) -> str:
    """What it costs in the quickest tenth of each: on a busy machine, pairs mostly tell who had to wait for a core."""
    over_ms = (quantile(took[way], 0.1) - quantile(took["bare"], 0.1)) * 1_000
    return f"quickest tenths: {number(over_ms)} ms"


async def bare(flow: Flow, event: FlowEvent) -> float:
    """The seconds of the process alone, from its start until its output is read and its end is known."""
    step = flow.steps[0]
    env = step_environ(step, event, RUNTIME, os.environ)
    argv, stdin = RUNNERS[step.runner].argv(flow, step, tools(), env), step_stdin(flow, step, event, RUNTIME)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=flow.root,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, _ = await process.communicate(stdin)
    took = time.perf_counter() - began
    assert b"FLOW_RESULT" in out, out
    return took


async def _step(flow: Flow, guard: Guard, event: FlowEvent) -> float:
    began = time.perf_counter()
    outcome = await run_step(
        flow,
        flow.steps[0],
        event,
        runtime=RUNTIME,
        environ=os.environ,
        tools=tools(),
        on_output=lambda _stream, _text: None,
        cancel=asyncio.Event(),
        kill_grace_ms=1_000,
        post=guard.post(),
    )
    took = time.perf_counter() - began
    assert outcome.result is not None, outcome.error
    return took


async def _event(local: Local, event: FlowEvent) -> float:
    """From the dispatch of an event until its run is seen to have ended."""
    began = time.perf_counter()
    (run_id,) = (await local.flows.dispatch(event)).run_ids
    await ended(local, run_id)
    return time.perf_counter() - began


async def ended(local: Local, run_id: str) -> None:
    """Waits until a run has completed."""
    found = await local.engine.read(lambda reader: reader.run("main", run_id))
    assert found is not None
    last = await local.engine.wait_run(found.no, lambda one: one.terminal, timeout_s=60)
    assert last is not None
    assert last.status == "completed", last.error

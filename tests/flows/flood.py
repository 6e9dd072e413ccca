"""A step that prints without end, and the memory that reading it takes: in a process of its own, to be measured."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

from msgspec import Struct, json

from stepwell.flows.executors.guard import Guard
from stepwell.flows.manifest import load_flow
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import run_step
from stepwell.model.settings import Settings
from stepwell.worker.local import open_local
from tests.support import durable_url

from .packages import RUNTIME, event, write

SHAPES = {
    "lines": "yes a line of a common length, as programs print them | head -c {size}\n",
    "one line": "head -c {size} /dev/zero\n",
    "results": 'yes \'FLOW_RESULT {{"status":"failed"}}\' | head -c {size}; echo\n',
    "invalid UTF-8": "yes \"$(printf '\\377\\376\\303')\" | head -c {size}; echo\n",
    "stderr": "head -c {size} /dev/zero >&2\n",
}


class Flood(Struct):
    """What came of it: how many characters came by, the end of the step, and the growth of our memory at its peak."""

    seen: int
    status: str | None
    error: str | None
    grown_kib: int


def flood(folder: Path, shape: str, size: int, *, worker: bool = False) -> Flood:
    """Run a step that prints `size` bytes in a fresh process, alone or by a whole worker that keeps its output."""
    root, folder = Path(__file__).resolve().parents[2], folder / "flows" / "flood"
    step = '[[steps]]\nname = "flood"\nrunner = "command"\nscript = "run"\ntrigger = {type = "demo"}\n'
    write(folder / "flow.toml", f'name = "flood"\nversion = 1\n{step}')
    line = SHAPES[shape].format(size=size)
    write(folder / "run", f'#!/bin/sh\n{line}echo\necho \'FLOW_RESULT {{"status":"completed"}}\'\n', 0o755)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.flows.flood", str(folder), "worker" if worker else "step"]
    answer = subprocess.run(command, cwd=root, env=env, stdout=subprocess.PIPE, check=True)
    return json.decode(answer.stdout, type=Flood)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def _step(folder: Path) -> Flood:
    flow, seen = load_flow(folder), [0]

    def count(stream: str, text: str) -> None:
        seen[0] += len(text)

    before = _peak_kib()
    outcome = await run_step(
        flow, flow.steps[0], event(), runtime=RUNTIME, environ=os.environ, tools=Tools(), on_output=count,
        cancel=asyncio.Event(), kill_grace_ms=100, post=Guard().post(),
    )  # fmt: skip
    status = outcome.result.status if outcome.result else None
    return Flood(seen[0], status, outcome.error.type if outcome.error else None, _peak_kib() - before)


async def _worker(folder: Path) -> Flood:
    cwd = folder.parents[1]
    async with open_local(durable_url(cwd / "app.sqlite"), cwd, settings=Settings(), slots=1) as local:
        before = _peak_kib()
        accepted = await local.flows.dispatch(event())
        run = await local.engine.read(lambda reader: reader.run("main", accepted.run_ids[0]))
        assert run is not None
        run = await local.engine.wait_run(run.no, lambda one: one.terminal, timeout_s=600)
        assert run is not None
        number = run.no
        kept = await local.engine.read(lambda reader: reader.output(number, limit=10_000))
        error = json.decode(run.error)["type"] if run.error else None
        return Flood(sum(len(chunk.text) for chunk in kept), run.result_status, error, _peak_kib() - before)


if __name__ == "__main__":
    measure = _worker if sys.argv[2] == "worker" else _step
    sys.stdout.buffer.write(json.encode(asyncio.run(measure(Path(sys.argv[1])))))

"""Makes real packages in a temporary directory."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwell.flows.context import Runtime
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.executors.guard import Guard, Post
from stepwell.flows.manifest import load_flow
from stepwell.flows.options import FlowOptions
from stepwell.flows.package import Flow
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import Outcome, run_step

NOW = "2026-05-13T13:36:00.000Z"
REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME = Runtime(run_id="run-1", attempt_id="att-1")

STEP = """
[[steps]]
name = "hello"
runner = "python"
script = "exec/hello.py"
"""
TRIGGERED = STEP + '[steps.trigger]\ntype = "demo"\n'
HELLO = """
import json, sys
event = json.load(sys.stdin)["flow"]["event"]
print("FLOW_RESULT " + json.dumps({"status": "completed", "message": "hello " + event["payload"]["name"]}))
"""


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def package(root: Path, steps: str = TRIGGERED, *, name: str = "demo", top: str = "", script: str = HELLO) -> Path:
    """Write a package with one script and answer its root."""
    write(root / "flow.toml", f'name = "{name}"\nversion = 1\n{top}\n{steps}')
    write(root / "exec" / "hello.py", script)
    return root


def event(payload: Any = None, **keys: Any) -> FlowEvent:
    body = {"id": "ev-1", "type": "demo", "payload": {"name": "Ada"} if payload is None else payload, **keys}
    return parse_event(body, now_iso=NOW)


def bun_dirs() -> tuple[Path, ...]:
    """The directory whose `node_modules` has Bun: the repository, unless the environment names another."""
    return (Path(os.environ.get("STEPWELL_TEST_BUN", str(REPOSITORY))),)


def tools() -> Tools:
    return Tools(dirs=bun_dirs(), search_path=os.environ["PATH"])


class Said:
    """Collects output."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, str]] = []

    def __call__(self, stream: str, text: str) -> None:
        self.chunks.append((stream, text))

    def text(self, stream: str) -> str:
        return "".join(text for name, text in self.chunks if name == stream)


def run(
    root: Path,
    *,
    said: Callable[[str, str], None] | None = None,
    what: FlowEvent | None = None,
    environ: Mapping[str, str] | None = None,
    with_tools: Tools | None = None,
    kill_grace_ms: int = 200,
    before: Callable[[Flow], None] = lambda flow: None,
    options: FlowOptions | None = None,
    cancel: asyncio.Event | None = None,
    post: Post | None = None,
) -> Outcome:
    """Run the first step of a package to its end; `before` happens between the load and the run."""
    flow: Flow = load_flow(root)
    step = flow.steps[0]
    before(flow)

    async def main() -> Outcome:
        return await run_step(
            flow,
            step,
            what or event(),
            runtime=RUNTIME,
            environ=os.environ if environ is None else environ,
            tools=with_tools or tools(),
            options=options,
            on_output=said or Said(),
            cancel=cancel or asyncio.Event(),
            kill_grace_ms=kill_grace_ms,
            post=post or Guard().post(),
        )

    return asyncio.run(main())

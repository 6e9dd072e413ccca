"""Packages and programs as a user of the seed has them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.flows.code_mode.harness import PEER
from tests.server.support import environ
from tests.support.nursery import run

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
BUN = str(REPOSITORY / "node_modules/.bin/bun")
PATIENCE_S = 60.0
BACKEND, RUNNER = "codex-flow-systemd-local", "codex-flow"

HELLO = """
const context = JSON.parse(await Bun.stdin.text());
const { name } = context.flow.event.payload;
console.log("FLOW_RESULT " + JSON.stringify({ status: "completed", message: `hello ${name}` }));
"""


def worker_environ(**more: str) -> dict[str, str]:
    """The environment of a worker that has every runner: Bun, and a peer in the place of Codex."""
    return {
        "STEPWELL_BUN": BUN,
        "CODEX_FLOWS_ENABLE_CODE_MODE": "1",
        "CODEX_APP_SERVER_CODEX_COMMAND": f"node {PEER}",
        **more,
    }


def copied(cwd: Path, root: str = "flows") -> Path:
    """The packages of `flows/` below a folder."""
    return Path(shutil.copytree(HERE / "flows", cwd / root))


def demo(
    cwd: Path,
    *,
    root: str = "flows",
    script: str = HELLO,
    runner: str = "bun",
    description: str = "source",
) -> Path:
    """The flow `demo` with the step `hello` for events of type demo.event."""
    package = cwd / root / "demo"
    (package / "exec").mkdir(parents=True)
    (package / "schemas").mkdir()
    (package / "schemas/demo.schema.json").write_text(
        '{"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}'
    )
    (package / "exec/hello.ts").write_text(script)
    (package / "flow.toml").write_text(
        f'name = "demo"\nversion = 1\ndescription = "{description}"\n\n[[steps]]\nname = "hello"\n'
        f'runner = "{runner}"\nscript = "exec/hello.ts"\ntimeout_ms = 60000\n'
        '[steps.trigger]\ntype = "demo.event"\nschema = "schemas/demo.schema.json"\n'
    )
    return package


def event(event_id: str = "demo-1", payload: Any = None, type_: str = "demo.event") -> dict[str, Any]:
    """An event as upstream's tests send it."""
    found = {"name": "Ada"} if payload is None else payload
    return {"id": event_id, "type": type_, "receivedAt": "2026-05-13T13:36:00.000Z", "payload": found}


def write_event(cwd: Path, body: Mapping[str, Any]) -> str:
    """A file with an event."""
    path = cwd / "event.json"
    path.write_text(json.dumps(body))
    return str(path)


def call(program: str, cwd: Path, *args: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """One of the seed's programs in a folder; it ends with this code."""
    command = [sys.executable, "-m", "stepwell.cli.seed", program, *args]
    done = run(command, cwd=cwd, env=environ(**env), timeout=PATIENCE_S)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


def said(program: str, cwd: Path, *args: str, **env: Any) -> dict[str, Any]:
    """What a program prints that ends well."""
    found: dict[str, Any] = json.loads(call(program, cwd, *args, **env).stdout)
    return found

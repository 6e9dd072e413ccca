"""Code Mode steps for tests: real packages, the real `run_step`, and `peer.mjs` in the place of Codex."""

import re
from collections.abc import Mapping
from pathlib import Path

from stepwell.flows.result import FlowResult
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import Outcome, StepFailure
from tests.flows.packages import Said, package, run, tools, write

PEER = Path(__file__).with_name("peer.mjs")
STEP = '[[steps]]\nname = "work"\nrunner = "code-mode"\nscript = "exec/work.js"\n'
SCRIPT = """
text("working\\n");
result({ status: "completed", message: `hello ${flow.event.payload.name}` });
"""


def peer(scenario: str = "good", *more: str) -> str:
    """The value of CODEX_APP_SERVER_CODEX_COMMAND for a scenario of the peer."""
    return " ".join(("node", str(PEER), f"--scenario={scenario}", *more))


def environ(command: str = "", **more: str) -> dict[str, str]:
    """A worker's environment in which Code Mode is on."""
    found = {"PATH": tools().search_path or "", "CODEX_FLOWS_ENABLE_CODE_MODE": "1", **more}
    return {**found, "CODEX_APP_SERVER_CODEX_COMMAND": command} if command else found


def play(
    root: Path,
    scenario: str = "good",
    *,
    script: str | bytes = SCRIPT,
    keys: str = "",
    said: Said | None = None,
    env: Mapping[str, str] | None = None,
    with_tools: Tools | None = None,
) -> Outcome:
    """Run one step against the peer. `keys` are lines for its table in flow.toml; `env` replaces the environment."""
    package(root, STEP + keys)
    write(root / "exec/work.js", "").write_bytes(script.encode() if isinstance(script, str) else script)
    return run(root, said=said, environ=environ(peer(scenario)) if env is None else env, with_tools=with_tools)


def result(outcome: Outcome) -> FlowResult:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def failure(outcome: Outcome) -> StepFailure:
    assert outcome.error is not None, outcome.result
    return outcome.error


def pids(text: str) -> list[int]:
    """The processes that the peer has named."""
    return [int(found) for found in re.findall(r"^pid (\d+)$", text, re.MULTILINE)]

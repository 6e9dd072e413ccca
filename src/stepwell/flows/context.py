"""What a step gets: its context on stdin, and its environment (source: spec codex-flows 2.2 and 4.1)."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from stepwell.flows.events import FlowEvent, event_view
from stepwell.flows.package import Flow, Step

LAUNCHED_BY = "stepwell"

#: The variables that every step gets, if the worker has them. A step's `env` adds to them.
DEFAULT_ENV = (
    "HOME",
    "PATH",
    "CODEX_HOME",
    "CODEX_FLOWS_MODE",
    "CODEX_FLOWS_ENABLE_CODE_MODE",
    "CODEX_FLOW_COMMIT",
    "CODEX_FLOW_PUSH",
    "CODEX_FLOW_PUBLISH",
    "CODEX_FLOW_FORCE",
    "CODEX_FLOW_SQUASH_PATCH_STACK",
    "CODEX_APP_SERVER_CODEX_COMMAND",
    "CODEX_APP_SERVER_CODEX_PACKAGE",
    "CODEX_APP_SERVER_BUNX_COMMAND",
    "PEEZY_CODEX_REPO",
    "PEEZY_CODEX_TARGET_BRANCH",
    "PEEZY_CODEX_CARGO_TARGET_DIR",
)


class Runtime(Struct, frozen=True):
    """Which attempt of which run this is, and whether its event is replayed."""

    run_id: str
    attempt_id: str
    replay: bool = False


def step_stdin(flow: Flow, step: Step, event: FlowEvent, runtime: Runtime) -> bytes:
    """The context: pretty JSON and a newline, UTF-8. `config` is there when the manifest has one that is not empty."""
    described: dict[str, Any] = {"name": flow.name, "version": flow.version, "root": str(flow.root), "step": step.name}
    if flow.config:
        described["config"] = flow.config
    described["event"] = event_view(event)
    context = {"flow": described, "runtime": _runtime_view(event, runtime)}
    return (json.dumps(context, indent=2, ensure_ascii=False) + "\n").encode(errors="replace")


def step_environ(step: Step, event: FlowEvent, runtime: Runtime, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment: the default names and the `env` of the step out of `environ`, and this run's own."""
    allowed = {name: environ[name] for name in (*DEFAULT_ENV, *step.env) if name in environ}
    return {
        **allowed,
        "CODEX_FLOW_EVENT_ID": event.id,
        "CODEX_FLOW_RUN_ID": runtime.run_id,
        "CODEX_FLOW_ATTEMPT_ID": runtime.attempt_id,
        "CODEX_FLOW_REPLAY": "1" if runtime.replay else "0",
        "CODEX_FLOW_LAUNCHED_BY": LAUNCHED_BY,
    }


def _runtime_view(event: FlowEvent, runtime: Runtime) -> dict[str, Any]:
    return {
        "eventId": event.id,
        "runId": runtime.run_id,
        "attemptId": runtime.attempt_id,
        "replay": runtime.replay,
        "launchedBy": LAUNCHED_BY,
    }

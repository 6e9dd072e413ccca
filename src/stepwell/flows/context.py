"""What a step gets: its context on stdin, and its environment (source: spec codex-flows 2.2 and 4.1)."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from stepwell.flows.events import FlowEvent, event_view
from stepwell.flows.options import FlowOptions
from stepwell.flows.package import Flow, Step

LAUNCHED_BY = "stepwell"

#: The variables that every step gets, if the worker has them and its options say nothing else.
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


def step_stdin(flow: Flow, step: Step, event: FlowEvent, runtime: Runtime, options: FlowOptions | None = None) -> bytes:
    """The context: pretty JSON and a newline, UTF-8. `config` is there when the manifest has one that is not empty."""
    described: dict[str, Any] = {"name": flow.name, "version": flow.version, "root": str(flow.root), "step": step.name}
    if flow.config:
        described["config"] = flow.config
    described["event"] = event_view(event)
    context = {"flow": described, "runtime": _runtime_view(event, runtime, options or FlowOptions())}
    return (json.dumps(context, indent=2, ensure_ascii=False) + "\n").encode(errors="replace")


def step_environ(
    step: Step, event: FlowEvent, runtime: Runtime, environ: Mapping[str, str], options: FlowOptions | None = None
) -> dict[str, str]:
    """The whole environment: what is forwarded and the `env` of the step out of `environ`, and this run's own."""
    options = options or FlowOptions()
    forward = DEFAULT_ENV if options.forward_env is None else options.forward_env
    allowed = {name: environ[name] for name in (*forward, *step.env) if name in environ}
    found = {
        **allowed,
        "CODEX_FLOW_EVENT_ID": event.id,
        "CODEX_FLOW_RUN_ID": runtime.run_id,
        "CODEX_FLOW_ATTEMPT_ID": runtime.attempt_id,
        "CODEX_FLOW_REPLAY": "1" if runtime.replay else "0",
        "CODEX_FLOW_LAUNCHED_BY": LAUNCHED_BY,
    }
    if options.workspace_url is not None:
        found["CODEX_WORKSPACE_BACKEND_WS_URL"] = options.workspace_url
    return found


def _runtime_view(event: FlowEvent, runtime: Runtime, options: FlowOptions) -> dict[str, Any]:
    found: dict[str, Any] = {
        "eventId": event.id,
        "runId": runtime.run_id,
        "attemptId": runtime.attempt_id,
        "replay": runtime.replay,
        "workspaceBackendUrl": options.workspace_url,
        "launchedBy": LAUNCHED_BY,
    }
    return {name: value for name, value in found.items() if value is not None}

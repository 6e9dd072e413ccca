import json
import os
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.context import step_environ, step_stdin
from stepwell.flows.manifest import load_flow
from stepwell.flows.options import FlowOptions
from stepwell.flows.runners.base import Tools
from stepwell.flows.wsurl import ws_url_fault
from stepwell.model.errors import Invalid

from .packages import RUNTIME, STEP, event, package, write

URL = "ws://127.0.0.1:3586/x"
OWN = (
    "CODEX_FLOW_EVENT_ID",
    "CODEX_FLOW_RUN_ID",
    "CODEX_FLOW_ATTEMPT_ID",
    "CODEX_FLOW_REPLAY",
    "CODEX_FLOW_LAUNCHED_BY",
)


def environ(root: Path, options: FlowOptions, **worker: str) -> dict[str, str]:
    step = load_flow(root).steps[0]
    return step_environ(step, event(), RUNTIME, worker, options)


def test_a_forward_list_replaces_the_default_one(tmp_path: Path) -> None:
    """Spec 4.1; what a step asks for itself and the names of its run go in all the same."""
    root = package(tmp_path, STEP + 'env = ["TOKEN"]')
    found = environ(root, FlowOptions(forward_env=("LANG",)), LANG="C", PATH="/bin", TOKEN="t", CODEX_HOME="/c")
    assert set(found) == {"LANG", "TOKEN", *OWN}
    assert set(environ(root, FlowOptions(forward_env=()), PATH="/bin")) == set(OWN)
    assert set(environ(root, FlowOptions(), LANG="C", PATH="/bin")) == {"PATH", *OWN}


def test_the_workspace_is_told_when_there_is_one(tmp_path: Path) -> None:
    root = package(tmp_path)
    flow = load_flow(root)
    options = FlowOptions(workspace_url=URL, forward_env=())
    assert environ(root, options)["CODEX_WORKSPACE_BACKEND_WS_URL"] == URL
    told = json.loads(step_stdin(flow, flow.steps[0], event(), RUNTIME, options))["runtime"]
    assert told["workspaceBackendUrl"] == URL
    assert "CODEX_WORKSPACE_BACKEND_WS_URL" not in environ(root, FlowOptions())
    untold = json.loads(step_stdin(flow, flow.steps[0], event(), RUNTIME, FlowOptions()))["runtime"]
    assert "workspaceBackendUrl" not in untold


@pytest.mark.parametrize(
    ("given", "option", "reason"),
    [
        ({"executor": "docker"}, "executor", "must be direct or systemd-run"),
        ({"executor": ""}, "executor", "must be direct or systemd-run"),
        ({"forward_env": ("A", "B=secret")}, "forward_env", "not the name of a variable"),
        ({"forward_env": ("",)}, "forward_env", "not the name of a variable"),
        ({"forward_env": ("A",) * 129}, "forward_env", "more than 128 names"),
        ({"tools": {"bun": " "}}, "tools", "no usable path for bun"),
        ({"tools": {"bun": "a\0"}}, "tools", "no usable path for bun"),
        ({"workspace_url": "http://secret.example"}, "workspace_url", "is not a ws:// or wss:// URL"),
        ({"workspace_url": ""}, "workspace_url", "is not a ws:// or wss:// URL"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_the_option(given: Any, option: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        FlowOptions(**given)
    assert caught.value.fields["option"] == option
    assert reason in caught.value.message
    assert caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["ws://h", "wss://h:1/a?b=c", "ws://[::1]:80"])
def test_addresses(text: str) -> None:
    assert ws_url_fault(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "h",
        "ws://",
        "ws:h",
        "ws://h:0",
        "ws://h:99999",
        "ws://h:x",
        "ws://[::1",
        "ws://h h",
        "ws://h\n",
        "ws://" + "h" * 2_048,
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert ws_url_fault(text)


def test_a_tool_is_found_from_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write(tmp_path / "tools/bun", "", 0o755)
    local = write(tmp_path / "node_modules/.bin/node", "", 0o755)
    monkeypatch.chdir(tmp_path)
    assert Tools({"bun": "tools/bun"}).find("bun") == str(own)
    assert Tools(dirs=(Path(),)).find("node") == os.fspath(local)

"""Spec codex-flows 8.2: (a) to (d) of the seed, and what its later test of the workspace's backend has of flows.

Out of scope, since they are the workspace's: app-server options, WebSocket capabilities, thread/list.
"""

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance_seed.support import BACKEND, BUN, HELLO, call, demo, event, said, write_event
from tests.server.support import as_bytes, serving

SECRET = "s3cret"
BODY = as_bytes(event())
HEADERS = ("x-flow-signature-256", "x-patchbay-flow-signature-256", "x-patch-flow-signature-256")


def signature(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def test_8_2_a_a_signature_is_of_these_bytes(tmp_path: Path) -> None:
    with serving(tmp_path, CODEX_FLOW_BACKEND_SECRET=SECRET) as server:
        signed = {HEADERS[0]: signature(BODY)}
        server.ask("POST", "/events", BODY + b"\n", **signed).error(401, "unauthorized")
        assert server.ask("POST", "/events", BODY, **signed).status == 202


def test_8_2_b_dispatch_wait_store_and_replay(tmp_path: Path) -> None:
    """A replay is told by `replay` of the run: its id has no suffix `_replay`, since an id says nothing here."""
    demo(tmp_path, script=HELLO)
    path = write_event(tmp_path, event())
    done = said(BACKEND, tmp_path, "dispatch", "--event", path, "--wait", STEPWELL_BUN=BUN)
    assert (done["status"], done["eventId"], done["matched"]) == ("accepted", "demo-1", 1)
    (run_id,) = done["runIds"]
    run = said(BACKEND, tmp_path, "show-run", run_id)["run"]
    assert (run["flowName"], run["stepName"], run["status"], run["executor"]) == (
        "demo", "hello", "completed", "direct",
    )  # fmt: skip
    assert "hello Ada" in run["stdout"]
    stored = said(BACKEND, tmp_path, "show-event", "demo-1")
    assert (stored["event"]["raw"], stored["event"]["payload"]) == (event(), {"name": "Ada"})
    again = said(BACKEND, tmp_path, "replay-event", "demo-1", "--wait", STEPWELL_BUN=BUN)
    assert (again["status"], again["matched"]) == ("accepted", 1)
    runs = said(BACKEND, tmp_path, "list-runs", "--event-id", "demo-1")["runs"]
    assert [(one["status"], one.get("replay")) for one in runs] == [("completed", 1), ("completed", None)]
    assert [one["id"] for one in runs] == [*again["runIds"], run_id]


def test_8_2_c_the_verbs_and_their_flags(tmp_path: Path) -> None:
    demo(tmp_path, script=HELLO)
    path = write_event(tmp_path, event())
    (run_id,) = said(BACKEND, tmp_path, "dispatch", "--event", path, "--wait", STEPWELL_BUN=BUN)["runIds"]
    listed = said(BACKEND, tmp_path, "list-events", "--type", "demo.event", "--limit", "5")["events"]
    assert [one["id"] for one in listed] == ["demo-1"]
    assert said(BACKEND, tmp_path, "show-event", "demo-1")["event"]["id"] == "demo-1"
    assert said(BACKEND, tmp_path, "replay-event", "demo-1", "--wait", STEPWELL_BUN=BUN)["matched"] == 1
    flags = ("--event-id", "demo-1", "--status", "completed", "--limit", "1")
    assert len(said(BACKEND, tmp_path, "list-runs", *flags)["runs"]) == 1
    assert said(BACKEND, tmp_path, "show-run", run_id)["run"]["id"] == run_id


#: Stands for systemd-run where there is no user manager: writes down how it was called, and runs the command.
RECORDER = """#!/usr/bin/env python3
import json, os, sys
at = next(n for n, arg in enumerate(sys.argv[1:], 1) if not arg.startswith("-"))
with open(os.environ.get("RECORD", {record!r}), "a") as file:
    file.write(json.dumps({{"argv": sys.argv, "environ": dict(os.environ)}}) + "\\n")
sys.exit(3)
"""


def test_8_2_d_the_command_of_a_unit(tmp_path: Path) -> None:
    """The four values go to the unit without being arguments: with --setenv everybody sees them (fault 17)."""
    demo(tmp_path, script=HELLO)
    record = tmp_path / "record"
    tool = tmp_path / "bin/systemd-run"
    tool.parent.mkdir()
    tool.write_text(RECORDER.format(record=str(record)))
    tool.chmod(0o755)
    values: dict[str, Any] = {
        "CODEX_FLOWS_MODE": "value-1", "CODEX_FLOW_COMMIT": "value-2", "CODEX_FLOW_PUSH": "value-3",
        "CODEX_HOME": "/value-4",
    }  # fmt: skip
    call(
        BACKEND, tmp_path, "dispatch", "--event", write_event(tmp_path, event()), "--wait",
        "--executor", "systemd-run", "--bun", BUN,
        PATH=f"{tool.parent}{os.pathsep}{os.environ['PATH']}", XDG_RUNTIME_DIR=str(tmp_path), **values,
    )  # fmt: skip
    called = json.loads(record.read_text().splitlines()[0])
    argv = called["argv"][1:]
    assert "--user" in argv
    assert "--wait" in argv
    assert any(arg.startswith("--unit=codex-flow-") for arg in argv), argv
    assert not [arg for arg in argv if "value-" in arg]
    assert called["environ"]["XDG_RUNTIME_DIR"] == str(tmp_path)


@pytest.mark.parametrize("name", HEADERS)
def test_8_2_head_1_every_signature_header_is_read(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, CODEX_FLOW_BACKEND_SECRET=SECRET) as server:
        assert server.ask("POST", "/flow-events", BODY, **{name: signature(BODY)}).status == 202
        server.ask("POST", "/flow-events", BODY, **{name: signature(b"")}).error(401, "unauthorized")


def test_8_2_head_2_the_workspace_and_the_ids_reach_the_step(tmp_path: Path) -> None:
    """Also under a list of forwarded names of one's own; the attempt has an id of its own, unlike upstream's."""
    names = ["CODEX_FLOW_EVENT_ID", "CODEX_FLOW_RUN_ID", "CODEX_FLOW_ATTEMPT_ID", "CODEX_FLOW_REPLAY",
             "CODEX_WORKSPACE_BACKEND_WS_URL", "CODEX_FLOW_LAUNCHED_BY", "CODEX_FLOW_PUSH"]  # fmt: skip
    told = f"const env = Object.fromEntries({json.dumps(names)}.map((name) => [name, process.env[name] ?? null]));"
    demo(tmp_path, script=told + 'console.log("FLOW_RESULT " + JSON.stringify({status: "completed", artifacts: env}));')
    env = {"CODEX_FLOW_BACKEND_FORWARD_ENV": "PATH", "CODEX_FLOW_PUSH": "1", "STEPWELL_BUN": BUN}
    url, path = "ws://127.0.0.1:3586", write_event(tmp_path, event())
    done = said(BACKEND, tmp_path, "dispatch", "--event", path, "--wait", "--workspace-backend-url", url, **env)
    (run_id,) = done["runIds"]
    told_env = said(BACKEND, tmp_path, "show-run", run_id)["run"]["result"]["artifacts"]
    assert told_env == dict(zip(names, ["demo-1", run_id, f"{run_id}.1.1", "0", url, "stepwell", None], strict=True))
    again = said(BACKEND, tmp_path, "replay-event", "demo-1", "--wait", **env)
    told_env = said(BACKEND, tmp_path, "show-run", again["runIds"][0])["run"]["result"]["artifacts"]
    assert told_env["CODEX_FLOW_REPLAY"] == "1"


def test_8_2_head_3_healthz_is_open_and_no_events_are_a_list(tmp_path: Path) -> None:
    """Over HTTP: `flow.listEvents` on a WebSocket is the workspace's."""
    with serving(tmp_path) as server:
        assert server.get("/healthz")["ok"] is True
        assert server.get("/events") == {"events": []}

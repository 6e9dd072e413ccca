"""Spec codex-flows 8.1, items 1 to 10. Item 11 (helpers that call a workspace) is the workspace's, which is no part of
this product; the address that it reads is in items 9 and 10."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from stepwell.flows.backend import FlowBackend
from stepwell.flows.codemode.gate import is_enabled
from stepwell.flows.discovery import discover
from stepwell.flows.events import parse_event
from stepwell.flows.options import FlowOptions
from stepwell.flows.runners.base import Tools
from stepwell.flows.schemas import Schemas
from stepwell.flows.trigger import match
from stepwell.worker.steps import StepHandler
from stepwell.worker.worker import Worker
from tests.conformance_seed.support import BUN, HELLO, REPOSITORY, RUNNER, call, demo, event, said, write_event
from tests.worker.support import house

MODULE = """
export default function ({ flow, runtime }) {
  const names = ["RUN_ID", "ATTEMPT_ID", "EVENT_ID", "REPLAY"];
  const env = Object.fromEntries(names.map((name) => [name, process.env["CODEX_FLOW_" + name]]));
  env.URL = process.env.CODEX_WORKSPACE_BACKEND_WS_URL;
  return { status: "completed", message: flow.event.id, artifacts: { runtime, env } };
}
"""
DEFINED = """
import { defineBunFlow } from "@peezy.tech/flow-runtime";
export default defineBunFlow((context) => ({ status: "changed", message: `hello ${context.flow.event.payload.name}` }));
"""
GATED = "requires CODEX_FLOWS_ENABLE_CODE_MODE=1"


def matched(cwd: Path, payload: object) -> list[tuple[str, str]]:
    found = match(discover(cwd).flows, parse_event(event(payload=payload), now_iso="-"), Schemas())
    return [(one.flow.name, one.step.name) for one in found.matches]


def test_8_1_1_installed_flow_wins(tmp_path: Path) -> None:
    demo(tmp_path, root="flows", description="source")
    demo(tmp_path, root=".codex/flows", description="installed")
    (flow,) = discover(tmp_path).flows
    assert (flow.name, flow.description, flow.root) == ("demo", "installed", tmp_path / ".codex/flows/demo")


def test_8_1_2_a_step_matches_by_type_and_schema(tmp_path: Path) -> None:
    demo(tmp_path)
    assert matched(tmp_path, {"name": "Ada"}) == [("demo", "hello")]
    assert matched(tmp_path, {}) == []


def bundled(cwd: Path) -> Path:
    """The release flows of the examples, as an installation would copy them."""
    for name in ("openai-codex-bindings", "peezy-codex-fork"):
        shutil.copytree(REPOSITORY / "examples/flows" / name, cwd / ".codex/flows" / name)
    return cwd


def test_8_1_3_one_release_matches_both_bundled_flows_in_order(tmp_path: Path) -> None:
    """Matched only: no release is made up and dispatched."""
    payload = {"repo": "openai/codex", "tag": "rust-v0.0.0-fixture.1"}
    release = {"id": "x", "type": "upstream.release", "source": "fixture", "payload": payload}
    found = match(discover(bundled(tmp_path)).flows, parse_event(release, now_iso="-"), Schemas())
    assert [(one.flow.name, one.step.name) for one in found.matches] == [
        ("openai-codex-bindings", "regenerate-bindings"),
        ("peezy-codex-fork", "rebase-patch-stack"),
    ]


def test_8_1_4_the_bundled_code_mode_step_is_gated(tmp_path: Path) -> None:
    """The event is none of a release, and the step is not even started."""
    path = write_event(bundled(tmp_path), event(type_="smoke"))
    done = call(RUNNER, tmp_path, "run", "peezy-codex-fork", "rebase-patch-stack", "--event", path, code=1)
    assert f"Code Mode flow step peezy-codex-fork/rebase-patch-stack {GATED}" in done.stderr


def test_8_1_5_the_gate() -> None:
    assert not is_enabled({})
    assert is_enabled({"CODEX_FLOWS_ENABLE_CODE_MODE": "1"})
    assert is_enabled({"CODEX_FLOWS_MODE": "code-mode"})


def test_8_1_6_schema_errors_in_the_words_of_the_seed(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "required": ["name", "kind"],
        "properties": {"name": {"type": "string"}, "kind": {"enum": ["demo"]}},
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    check = Schemas().check
    assert check(tmp_path, "schema.json", {"kind": "other"}).split("; ") == [
        "$.name is required",
        "$.kind must be one of demo",
    ]
    assert check(tmp_path, "schema.json", {"name": "Ada", "kind": "demo"}) == ""


def test_8_1_7_the_result_of_a_bun_step(tmp_path: Path) -> None:
    demo(tmp_path, script=HELLO)
    told = said(RUNNER, tmp_path, "run", "demo", "hello", "--event", write_event(tmp_path, event()), STEPWELL_BUN=BUN)
    assert told == {"flow": "demo", "step": "hello", "result": {"status": "completed", "message": "hello Ada"}}


def test_8_1_8_any_step_in_code_mode_is_gated(tmp_path: Path) -> None:
    demo(tmp_path, runner="code-mode")
    path = write_event(tmp_path, event())
    done = call(RUNNER, tmp_path, "run", "demo", "hello", "--event", path, code=1)
    assert f"Code Mode flow step demo/hello {GATED}" in done.stderr


def test_8_1_9_a_module_gets_the_ids_of_its_run(tmp_path: Path) -> None:
    demo(tmp_path, script=MODULE)
    url = "ws://127.0.0.1:3586"

    async def main() -> None:
        async with house(tmp_path) as made:
            made.flows = FlowBackend(made.engine, tmp_path)
            handler = StepHandler(made.flows, tools=Tools({"bun": BUN}), options=FlowOptions(workspace_url=url))
            worker = Worker(made.engine, {"step": handler}, slots=1, requires=handler.requires)
            made.workers.append(worker)
            worker.start()
            first = await made.flows.dispatch(parse_event(event(), now_iso="-"))
            await made.end(first.run_ids[0])
            (run_id,) = (await made.flows.replay("demo-1")).run_ids
            await made.end(run_id)
            told = (await made.view(run_id))["result"]["artifacts"]
            runtime = {"eventId": "demo-1", "runId": run_id, "attemptId": f"{run_id}.1.1", "replay": True}
            assert told["runtime"] == {**runtime, "workspaceBackendUrl": url, "launchedBy": "stepwell"}
            assert told["env"] == {
                "RUN_ID": run_id, "ATTEMPT_ID": f"{run_id}.1.1", "EVENT_ID": "demo-1", "REPLAY": "1", "URL": url,
            }  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize("module", ["@peezy.tech/flow-runtime", "@peezy.tech/codex-flows/flow-runtime"])
def test_8_1_10_a_default_export_by_define_bun_flow_runs(tmp_path: Path, module: str) -> None:
    demo(tmp_path, script=DEFINED.replace("@peezy.tech/flow-runtime", module))
    told = said(RUNNER, tmp_path, "run", "demo", "hello", "--event", write_event(tmp_path, event()), STEPWELL_BUN=BUN)
    assert told["result"] == {"status": "changed", "message": "hello Ada"}

"""Flows written for the original run unchanged: every runner and shape, every result status, on a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.client import BlockingFlowClient
from stepwell.model.words import RESULT_STATUSES
from tests.conformance_seed.support import HERE, copied, worker_environ
from tests.server.support import lawful, serving

PACKAGES = sorted(path.name for path in (HERE / "flows").iterdir())
IN_FULL = ("raw-bun", "module-bun")
CASES = [(name, status) for name in IN_FULL for status in RESULT_STATUSES] + [
    (name, status)
    for name, status in zip(
        (name for name in PACKAGES if name not in IN_FULL),
        ("changed", "blocked", "completed", "needs_intervention", "skipped", "failed", "changed", "completed"),
        strict=True,
    )
]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingFlowClient]:
    """A client of a server that has the packages."""
    cwd: Path = tmp_path_factory.mktemp("original")
    copied(cwd)
    with serving(cwd, **worker_environ()) as server, BlockingFlowClient(server.url) as client:
        yield client
    lawful(cwd)


@pytest.mark.parametrize(("name", "status"), CASES)
def test_a_flow_written_for_the_original_runs_unchanged(flows: BlockingFlowClient, name: str, status: str) -> None:
    """A `failed` result is a failed run here, with its result kept: upstream calls it completed (fault 19)."""
    sent = {"id": f"{name}-{status}", "type": f"report.{name}", "payload": {"status": status, "files": 2}}
    done = flows.dispatch(sent, wait=60.0)
    assert (done.matched, done.ended) == (1, True), done
    run = flows.get_run(done.run_ids[0])
    assert (run.flow_name, run.step_name) == (name, "report")
    assert run.process_status == ("failed" if status == "failed" else "completed"), run.failure
    assert (run.result_status, run.status) == (status, status)
    assert run.result == {"status": status, "message": f"hello {sent['id']}", "artifacts": {"files": 2}}
    assert run.raw["resultJson"].startswith(f'{{"flow":"{name}","step":"report","result":{{"status":"{status}"')
    assert run.needs_attention is (status in ("needs_intervention", "blocked", "failed"))
    assert (run.error, run.attempt_count) == (f"hello {sent['id']}" if status == "failed" else None, 1)
    kinds = {chunk.kind: "" for chunk in run.output}
    for chunk in run.output:
        kinds[chunk.kind] += chunk.text
    by_codex = name == "in-codex"  # all that it says is the agent's; the peer itself talks to stderr
    assert f"hello from {name}/report\n" in kinds["agent" if by_codex else "stdout"]
    assert "FLOW_RESULT " in kinds["agent" if by_codex else "stdout"]
    assert by_codex or kinds["stderr"] == "a word to stderr\n"


def test_payloads_that_the_schema_refuses_start_nothing(flows: BlockingFlowClient) -> None:
    for n, payload in enumerate(({}, {"status": "great"}, {"status": "completed", "files": 1.5}, [])):
        done = flows.dispatch({"id": f"no-{n}", "type": "report.raw-bun", "payload": payload})
        assert (done.status, done.matched, done.run_ids) == ("accepted", 0, ())
        (miss,) = flows.get_event(f"no-{n}").misses
        assert (miss["flow"], miss["step"]) == ("raw-bun", "report")
        assert miss["reason"]


def test_a_module_that_throws_has_failed_with_what_it_said(tmp_path: Path) -> None:
    """Upstream calls that run completed, with a failed result inside (spec 3.1)."""
    root = copied(tmp_path)
    script = root / "module-bun/exec/report.ts"
    script.write_text('export default function () { throw new Error("no paper"); }\n')
    with serving(tmp_path, **worker_environ()) as server, BlockingFlowClient(server.url) as flows:
        sent = {"id": "e", "type": "report.module-bun", "payload": {"status": "completed"}}
        (run,) = flows.dispatch(sent, wait=60.0).runs
        assert (run.process_status, run.result_status, run.error) == ("failed", "failed", "no paper")
        assert run.result == {"status": "failed", "message": "no paper"}

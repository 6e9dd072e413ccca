"""Spec codex-flows 8.4: the seed's clients and its runner, as ours."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stepwell.client import BlockingFlowClient, EmbeddedFlowClient, open_flow_client
from stepwell.flows.options import FlowOptions
from stepwell.model.errors import Unknown
from tests.conformance_seed.support import BUN, HELLO, RUNNER, call, demo, event, said, write_event

RUN: dict[str, Any] = {
    "id": "run_1", "eventId": "e/1", "flowName": "demo", "stepName": "hello", "status": "completed",
    "stdout": "out", "resultJson": '{"status": "changed"}', "createdAt": "2026-05-13T13:36:00.000Z",
}  # fmt: skip
RUNTIME = """
const { flow, runtime } = JSON.parse(await Bun.stdin.text());
console.log("FLOW_RESULT " + JSON.stringify({ status: "completed", message: "hello Ada", artifacts: { runtime } }));
"""
BLOCKED = HELLO.replace('"completed"', '"blocked"')
OPTIONS = FlowOptions(tools={"bun": BUN})


class Recorded:
    """A backend of the seed that has these answers by path, and keeps the requests."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.requests = list[httpx2.Request]()
        self._answers = answers

    def client(self, **options: Any) -> BlockingFlowClient:
        http = httpx2.Client(transport=httpx2.MockTransport(self._answer))
        return BlockingFlowClient("http://seed.example/base/", http=http, **options)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return httpx2.Response(200, json=self._answers[request.url.raw_path.decode().partition("?")[0]])


def test_8_4_backend_client_1_runs_and_events_are_read_below_the_base_path() -> None:
    stored = {"id": "e/1", "type": "t", "payload": {}}
    backend = Recorded(
        {
            "/base/runs": {"runs": [RUN]}, "/base/runs/run_1": {"run": RUN}, "/base/events": {"events": [stored]},
            "/base/events/e%2F1": {"event": stored, "runs": [RUN]},
        }
    )  # fmt: skip
    with backend.client() as flows:
        (run,) = flows.list_runs(event_id="e/1", status="completed", limit=5)
        assert run == flows.get_run("run_1")
        assert (run.effective_status, run.process_status, run.result_status) == ("changed", "completed", "changed")
        assert (run.latest_output, run.result) == ("out", {"status": "changed"})
        assert [one.id for one in flows.list_events(type="t")] == ["e/1"]
        assert flows.get_event("e/1").run_ids == ("run_1",)
    queries = [request.url.query.decode() for request in backend.requests]
    assert queries == ["eventId=e%2F1&status=completed&limit=5", "", "type=t", ""]


def test_8_4_backend_client_2_semantic_statuses_and_attempts() -> None:
    """Fault 13 on top: the report around the result, which the original writes, reads the same."""
    report = json.dumps({"flow": "demo", "step": "hello", "result": {"status": "blocked"}})
    blocked = [{**RUN, "resultJson": '{"status": "blocked"}'}, {**RUN, "resultJson": report}]
    asks = {**RUN, "resultJson": None, "result": {"status": "needs_intervention"}, "attempts": [{"attemptId": "a"}]}
    with Recorded({"/base/runs": {"runs": [*blocked, asks]}}).client() as flows:
        *both, last = flows.list_runs()
        for run in both:
            assert (run.process_status, run.effective_status, run.needs_attention) == ("completed", "blocked", True)
        assert (last.effective_status, last.needs_attention, last.attempt_count) == ("needs_intervention", True, 1)


def test_8_4_backend_client_3_requests_carry_credentials_and_signatures() -> None:
    accepted = {"status": "accepted", "eventId": "e", "runIds": [], "matched": 0}
    backend = Recorded(
        {"/base/events": accepted, "/base/events/e/replay": accepted, "/base/runs/run_1/cancel": {"run": RUN}}
    )
    options = {"token": "tok", "api_key": "key", "headers": {"x-extra": "1"}, "secret": "s", "timestamp": False}
    with backend.client(**options) as flows:
        flows.dispatch(event("e"), wait=True)
        flows.replay("e", wait=True)
        flows.cancel("run_1")
    for request in backend.requests:
        assert request.headers["authorization"] == "Bearer tok"
        assert (request.headers["x-api-key"], request.headers["x-extra"]) == ("key", "1")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-flow-signature-256"].startswith("sha256=")
        assert request.content
    assert [json.loads(request.content) for request in backend.requests] == [event("e"), {"wait": True}, {}]
    assert backend.requests[0].url.query == b"wait=true"


def test_8_4_client_1_the_http_client_signs() -> None:
    """With the time in it unless one asks for the plain form (spec 4.7, fault 22)."""
    accepted = {"status": "accepted", "eventId": "e", "runIds": [], "matched": 0}
    backend = Recorded({"/base/events": accepted})
    with backend.client(secret="s") as flows:
        flows.dispatch(event("e"))
    (request,) = backend.requests
    assert request.headers["x-flow-timestamp"].isdecimal()
    assert request.headers["x-flow-signature-256"].startswith("sha256=")


def test_8_4_client_2_the_local_client_without_a_file_has_a_memory(tmp_path: Path) -> None:
    """There is no `state: false`, which refuses to list: what is in memory can be looked at."""

    async def main() -> None:
        async with open_flow_client(tmp_path) as flows:
            assert len(await flows.list_events()) == len(await flows.list_runs()) == 0

    asyncio.run(main())


def local(cwd: Path, db: str = "memory:") -> Any:
    return open_flow_client(cwd, db=db, options=OPTIONS)


def test_8_4_local_client_1_the_installed_flow_wins_and_views_agree(tmp_path: Path) -> None:
    """`backend` is stepwell, wherever the engine is."""
    demo(tmp_path, script=BLOCKED)
    demo(tmp_path, root=".codex/flows", script=HELLO)

    async def main() -> None:
        flows: EmbeddedFlowClient
        async with local(tmp_path) as flows:
            (run,) = (await flows.dispatch(event(), wait=True)).runs
            assert (run.backend, run.process_status, run.result_status) == ("stepwell", "completed", "completed")
            assert run.result == {"status": "completed", "message": "hello Ada"}
            assert (await flows.get_event("demo-1")).run_ids == (run.id,)
            assert [one.id for one in await flows.list_runs()] == [run.id]

    asyncio.run(main())


def test_8_4_local_client_2_a_duplicate_is_idempotent(tmp_path: Path) -> None:
    demo(tmp_path)

    async def main() -> None:
        async with local(tmp_path) as flows:
            first = await flows.dispatch(event(), wait=True)
            again = await flows.dispatch(event(), wait=True)
            assert (again.matched, again.idempotent, again.run_ids) == (0, True, first.run_ids)

    asyncio.run(main())


def test_8_4_local_client_3_a_replay_is_another_run_of_the_event(tmp_path: Path) -> None:
    """It says so by `replay`, not by the end of its id."""
    demo(tmp_path)

    async def main() -> None:
        async with local(tmp_path) as flows:
            first = await flows.dispatch(event(), wait=True)
            again = await flows.replay("demo-1", wait=True)
            assert again.run_ids != first.run_ids
            assert again.runs[0].replay == 1
            assert set((await flows.get_event("demo-1")).run_ids) == {*first.run_ids, *again.run_ids}

    asyncio.run(main())


def test_8_4_local_client_4_a_file_survives_its_client(tmp_path: Path) -> None:
    demo(tmp_path)
    db = str(tmp_path / ".codex/flow-client/state.sqlite")

    async def main() -> None:
        async with local(tmp_path, db) as flows:
            first = await flows.dispatch(event(), wait=True)
        async with local(tmp_path, db) as flows:
            assert (await flows.get_run(first.run_ids[0])).status == "completed"
            assert (await flows.dispatch(event(), wait=True)).run_ids == first.run_ids
            again = await flows.replay("demo-1", wait=True)
        async with local(tmp_path, db) as flows:
            assert {run.id for run in await flows.list_runs()} == {*first.run_ids, *again.run_ids}

    asyncio.run(main())


def test_8_4_local_client_5_a_blocked_step_completed_and_asks_for_attention(tmp_path: Path) -> None:
    demo(tmp_path, script=BLOCKED)

    async def main() -> None:
        async with local(tmp_path) as flows:
            (run,) = (await flows.dispatch(event(), wait=True)).runs
            assert (run.process_status, run.status, run.needs_attention) == ("completed", "blocked", True)

    asyncio.run(main())


def test_8_4_local_client_6_a_gated_step_failed_and_says_why(tmp_path: Path) -> None:
    """Its attention is what the kernel says of a failed run, which has no result."""
    demo(tmp_path, runner="code-mode")

    async def main() -> None:
        async with open_flow_client(tmp_path, options=FlowOptions(forward_env=("PATH",))) as flows:
            (run,) = (await flows.dispatch(event(), wait=True)).runs
            assert (run.process_status, run.needs_attention) == ("failed", run.raw["needsAttention"])
            assert "requires CODEX_FLOWS_ENABLE_CODE_MODE=1" in (run.error or "")

    asyncio.run(main())


def test_8_4_local_client_7_what_is_unknown_is_refused(tmp_path: Path) -> None:
    """The part about `state: false` is item client 2."""

    async def main() -> None:
        async with local(tmp_path) as flows:
            for call in (flows.get_event("x"), flows.replay("x"), flows.get_run("x"), flows.cancel("x")):
                with pytest.raises(Unknown) as caught:
                    await call
                assert "x" in caught.value.message

    asyncio.run(main())


def test_8_4_flow_runner_1_fire_prints_exactly_its_results(tmp_path: Path) -> None:
    demo(tmp_path)
    done = call(RUNNER, tmp_path, "fire", "--event", write_event(tmp_path, event()), STEPWELL_BUN=BUN)
    result = {"flow": "demo", "step": "hello", "result": {"status": "completed", "message": "hello Ada"}}
    assert json.loads(done.stdout) == {"eventId": "demo-1", "results": [result]}
    assert done.stderr == ""


def test_8_4_flow_runner_2_run_tells_the_step_its_runtime(tmp_path: Path) -> None:
    """Ids are the engine's own: there are no flags to make them up."""
    demo(tmp_path, script=RUNTIME)
    path, url = write_event(tmp_path, event()), "ws://127.0.0.1:3586"
    args = ("run", "demo", "hello", "--event", path, "--workspace-backend-url", url)
    runtime = said(RUNNER, tmp_path, *args, STEPWELL_BUN=BUN)["result"]["artifacts"]["runtime"]
    assert (runtime["eventId"], runtime["replay"], runtime["workspaceBackendUrl"]) == ("demo-1", False, url)
    assert runtime["attemptId"].startswith(runtime["runId"])

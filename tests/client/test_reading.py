"""Answers of other backends as views (source: spec codex-flows 4.6, 5.1, 6.1; fault 13)."""

import msgspec
import pytest

from stepwell.client.reading import dispatched_of, event_of, output_of, run_of, runs_of
from stepwell.client.views import OutputChunk

REPORT = {"flow": "demo", "step": "go", "result": {"status": "blocked", "message": "ask"}}
SEED_RUN = {
    "id": "run_0123456789ab", "eventId": "e", "flowName": "demo", "stepName": "go", "status": "completed",
    "backend": "systemd-local", "executor": "direct", "eventPath": "/x/e.json", "stdout": "out\n", "stderr": "err\n",
    "createdAt": "2026-05-13T13:36:00.000Z", "completedAt": "2026-05-13T13:36:01.000Z",
}  # fmt: skip


def test_fault_13_the_status_is_found_inside_the_report() -> None:
    run = run_of({**SEED_RUN, "resultJson": msgspec.json.encode(REPORT).decode()})
    assert run.result == REPORT["result"]
    assert (run.process_status, run.result_status, run.status) == ("completed", "blocked", "blocked")
    assert run.needs_attention is True


def test_a_result_beats_result_json_and_may_be_null() -> None:
    assert run_of({"id": "r", "result": {"status": "changed"}, "resultJson": "{}"}).status == "changed"
    assert run_of({"id": "r", "result": None, "resultJson": '{"status": "changed"}'}).result is None
    assert run_of({"id": "r", "resultJson": '{"status":"changed"}'}).status == "changed"
    assert run_of({"id": "r", "resultJson": "{not json"}).result == "{not json"
    assert run_of({"id": "r", "resultJson": "[" * 100_000}).result == "[" * 100_000


@pytest.mark.parametrize(
    ("process", "result", "said", "effective", "attention"),
    [
        ("completed", "needs_intervention", "needs_intervention", "needs_intervention", True),
        ("completed", "skipped", "skipped", "skipped", False),
        ("failed", None, "failed", "failed", False),
        ("queued", None, None, "queued", False),
        ("completed", "great", "completed", "completed", False),
        (None, None, None, "unknown", False),
    ],
)
def test_the_effective_status(
    process: str | None, result: str | None, said: str | None, effective: str, attention: bool
) -> None:
    run = run_of({"id": "r", "status": process, "result": {"status": result}})
    assert (run.result_status, run.effective_status, run.status) == (said, effective, effective)
    assert run.needs_attention is attention


def test_attention_is_what_the_server_says() -> None:
    assert run_of({"id": "r", "status": "failed", "needsAttention": True}).needs_attention is True
    assert run_of({"id": "r", "result": {"status": "blocked"}, "needsAttention": False}).needs_attention is False


def test_output_is_made_of_stdout_and_stderr_where_there_is_no_other() -> None:
    run = run_of(SEED_RUN)
    assert run.output == (OutputChunk(n=1, text="out\n"), OutputChunk(n=2, kind="stderr", text="err\n"))
    assert run.latest_output == "err\n"
    assert run_of({**SEED_RUN, "stderr": None}).latest_output == "out\n"
    assert run_of({**SEED_RUN, "output": [{"kind": "agent", "text": "hi"}]}).latest_output == "hi"
    assert run_of({"id": "r"}).latest_output is None


def test_a_run_of_the_convex_component() -> None:
    run = run_of(
        {
            "_id": "doc", "runId": "run:e:demo:go", "flowVersion": 2, "runner": "node", "status": "running",
            "attemptCount": 3, "createdAt": 1778679360000, "updatedAt": 1e300, "startedAt": float("nan"),
            "attempts": [{"attemptId": "a:1", "attemptNumber": 1, "status": "failed", "workerId": "w", "error": "x"}],
        }
    )  # fmt: skip
    assert (run.id, run.flow_version, run.runner, run.attempt_count) == ("run:e:demo:go", "2", "node", 3)
    assert (run.created_at, run.updated_at, run.started_at) == ("2026-05-13T13:36:00.000Z", None, None)
    (attempt,) = run.attempts
    assert (attempt.id, attempt.attempt, attempt.ended, attempt.worker, attempt.error) == ("a:1", 1, "failed", "w", "x")


def test_finished_at_beats_completed_at() -> None:
    assert run_of({**SEED_RUN, "finishedAt": "later"}).completed_at == "later"
    assert run_of(SEED_RUN).completed_at == "2026-05-13T13:36:01.000Z"


@pytest.mark.parametrize("data", [None, [], "x", 1, {}, {"id": 1, "status": [], "output": 3, "attempts": {}}])
def test_whatever_comes_is_shown_as_far_as_it_goes(data: object) -> None:
    assert (run_of(data).id, run_of(data).status) == ("", "unknown")
    assert event_of(data).id == ""


def test_members_of_wrong_types_are_as_good_as_none() -> None:
    run = run_of({"id": "r", "error": {"message": "bad"}, "attempts": [None], "output": [None, {"n": "x", "text": 1}]})
    assert (run.error, run.attempt_count, len(run.output)) == ("bad", 1, 2)
    assert output_of({"output": [{"n": 2, "text": "x"}], "next": 2}).chunks[0].n == 2
    assert runs_of({"runs": {"id": "r"}}).items == ()


def test_a_dispatch_and_an_event_know_their_runs() -> None:
    done = dispatched_of({"status": "duplicate", "eventId": "e", "runIds": ["a", 1], "matched": 0})
    assert (done.idempotent, done.run_ids, done.ended, done.runs) == (True, ("a",), None, ())
    shown = event_of({"id": "e", "type": "t"}, [{"id": "r1"}, {"id": "r2"}])
    assert (shown.run_ids, shown.matched, shown.payload) == (("r1", "r2"), None, None)

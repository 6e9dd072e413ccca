"""Code Mode steps through `run_step`, with a real program that speaks the protocol of the app-server."""

import time
from pathlib import Path

import pytest

from stepwell.flows.codemode.program import MAX_SCRIPT_BYTES
from tests.flows.code_mode.harness import environ, failure, peer, pids, play, result
from tests.flows.packages import Said
from tests.flows.test_direct import is_alive, wait_for


def test_the_round_trip(tmp_path: Path) -> None:
    """Fault 12: deltas lost the result. Conformance 8.5: a round trip and a line of stderr."""
    said = Said()
    outcome = play(tmp_path, said=said)
    assert result(outcome).raw == {"status": "completed", "message": "hello Ada"}
    assert said.text("stdout") == ""
    streamed, last = said.text("agent").rstrip("\n").rsplit("\n", 1)
    assert streamed.startswith("working\n\nFLOW_RESULT ")
    assert last == 'FLOW_RESULT {"status":"completed","message":"hello Ada"}'
    stderr = said.text("stderr")
    assert "peer: hello codex-flow-runner true --scenario=good app-server --listen stdio://" in stderr
    assert (
        f'peer: {{"cwd":"{tmp_path}","approvalPolicy":"never","sandbox":"danger-full-access","ephemeral":false,'
        '"experimentalRawEvents":false,"persistExtendedHistory":true}' in stderr
    )


def test_a_script_has_the_shell_and_the_context(tmp_path: Path) -> None:
    script = """
const { output, exit_code } = await tools.exec_command({ cmd: "pwd; exit 3", workdir: flow.root });
result({ status: "changed", message: output.trim(), artifacts: { exit_code, run: runtime.runId } });
"""
    found = result(play(tmp_path, script=script))
    assert (found.message, found.artifacts) == (str(tmp_path), {"exit_code": 3, "run": "run-1"})


def test_a_long_command_may_be_polled(tmp_path: Path) -> None:
    script = """
let found = await tools.exec_command({ cmd: "printf a; sleep 0.3; printf b; exit 4", yield_time_ms: 50 });
let output = found.output, polls = 0;
while (found.exit_code === undefined) {
  found = await tools.write_stdin({ session_id: found.session_id, chars: "", yield_time_ms: 50 });
  output += found.output;
  polls += 1;
}
result({ status: "changed", message: output, artifacts: { code: found.exit_code, polled: polls > 0 } });
"""
    found = result(play(tmp_path, script=script, env=environ(peer("good", "--yields"))))
    assert (found.message, found.artifacts) == ("ab", {"code": 4, "polled": True})


@pytest.mark.parametrize(
    "scenario", ["silent", "read-refused", "huge-read", "late", "at-once", "others", "forged", "garbage"]
)
def test_it_works_all_the_same(tmp_path: Path, scenario: str) -> None:
    """The result is the thread's, else the streamed one; what is not for us, or nothing, does no harm."""
    said = Said()
    assert result(play(tmp_path, scenario, said=said)).message == "hello Ada"
    assert "not for us" not in said.text("agent")
    assert ("skipped" in said.text("stderr")) == (scenario == "garbage")
    assert len(said.text("stderr")) < 8_000


def test_the_result_of_a_command_only(tmp_path: Path) -> None:
    assert result(play(tmp_path, "command-only")).status == "changed"


def test_requests_are_refused(tmp_path: Path) -> None:
    said = Said()
    assert result(play(tmp_path, "requests", said=said)).status == "completed"
    assert 'answered {"code":-32603,"message":"flow runner does not handle server requests"}' in said.text("agent")


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("dies", "the app-server exited with 7"),
        ("dies-held", "the app-server exited with 8"),
        ("dies-flooded", "the app-server exited with 9"),
        ("fails", "the turn failed: the model is tired; since noon"),
        ("interrupted", "the turn was interrupted"),
        ("retries", "the turn failed: no route"),
        ("turn-failed", "an older way to say it"),
        ("closed", "was closed with its thread"),
        ("huge", "a line of more than 33554432 bytes"),
        ("no-result", "did not print a FLOW_RESULT line"),
        ("refuses", "refused thread/codeMode/execute: the source is not to my taste"),
        ("no-thread", "thread/start has no thread id"),
    ],
)
def test_failures_end_the_step_at_once_and_say_why(tmp_path: Path, scenario: str, message: str) -> None:
    """Fault 15: the death of the server and the failure of the turn were not seen."""
    began = time.monotonic()
    failed = failure(play(tmp_path, scenario))
    assert (failed.type, failed.exit_code) == ("exit", 1)
    assert message in failed.message
    assert message in failed.stderr
    assert "Exception" not in failed.stderr
    assert time.monotonic() - began < 5


def test_without_a_result_the_reason_is_told_why_it_could_not_be_read(tmp_path: Path) -> None:
    stderr = failure(play(tmp_path, "read-refused", script='text("done")')).stderr
    assert "refused thread/read: list_turns is not supported yet" in stderr


def test_a_dead_server_is_told_with_its_last_words_and_what_was_streamed(tmp_path: Path) -> None:
    said = Said()
    failed = failure(play(tmp_path, "dies", said=said))
    assert "peer: out of memory\n" in failed.stderr
    assert said.text("agent").startswith("half of it\n")


def test_a_codex_without_the_method(tmp_path: Path) -> None:
    failed = failure(play(tmp_path, "no-method"))
    stderr = failed.stderr
    assert failed.message.startswith("this Codex (peer/0.0.1) has no"), "it is the message, and not its hint"
    assert "this Codex (peer/0.0.1) has no thread/codeMode/execute" in stderr
    assert "@peezy.tech/codex" in stderr


@pytest.mark.parametrize("scenario", ["hangs", "stubborn"])
def test_a_timeout_leaves_nothing_behind(tmp_path: Path, scenario: str) -> None:
    """Faults 14 and 15: one deadline over all, for all processes."""
    said = Said()
    failed = failure(play(tmp_path, scenario, keys="timeout_ms = 1500\n", said=said))
    assert failed.type == "timeout"
    assert "stopped while it waited for the answer to thread/codeMode/execute" in failed.stderr
    left = pids(said.text("agent"))
    assert len(left) == (1 if scenario == "hangs" else 2)
    assert wait_for(lambda: not any(map(is_alive, left)))


def test_a_script_that_throws(tmp_path: Path) -> None:
    assert "ReferenceError: nothing is not defined" in failure(play(tmp_path, script="nothing();")).stderr


@pytest.mark.parametrize(
    ("script", "message"),
    [(b"\xff", "is not UTF-8"), (b"/" * (MAX_SCRIPT_BYTES + 1), f"is over {MAX_SCRIPT_BYTES} bytes")],
)
def test_a_script_that_cannot_be_sent(tmp_path: Path, script: bytes, message: str) -> None:
    assert message in failure(play(tmp_path, script=script)).stderr


def test_a_large_script_and_result(tmp_path: Path) -> None:
    script = f'/* {"é" * 300_000} */ result({{ status: "changed", message: "é".repeat(300000) }});'
    assert result(play(tmp_path, script=script)).message == "é" * 300_000


def test_the_workspace_variable_does_not_redirect(tmp_path: Path) -> None:
    """Fault 15: this variable sent the step to another server, and nobody was told."""
    env = environ(peer(), CODEX_WORKSPACE_APP_SERVER_WS_URL="ws://127.0.0.1:9")
    outcome = play(tmp_path, keys='env = ["CODEX_WORKSPACE_APP_SERVER_WS_URL"]\n', env=env)
    assert result(outcome).status == "completed"

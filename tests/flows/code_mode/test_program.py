"""The program by itself, without the executor that ends what it leaves behind."""

import shlex
import subprocess
import sys
from pathlib import Path

from tests.flows.code_mode.harness import SCRIPT, peer, pids
from tests.flows.packages import write
from tests.flows.test_direct import is_alive, wait_for

CONTEXT = '{"flow": {"event": {"payload": {"name": "Ada"}}}}'


def run(*arguments: str, stdin: str = CONTEXT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stepwell.flows.codemode", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=20)


def test_the_last_line_is_the_result(tmp_path: Path) -> None:
    script = write(tmp_path / "work.js", SCRIPT)
    found = run(str(script), "--", *shlex.split(peer("forged")))
    assert found.returncode == 0
    assert found.stdout.splitlines()[-1] == 'FLOW_RESULT {"status":"completed","message":"hello Ada"}'


def test_a_server_that_does_not_want_to_go_is_killed(tmp_path: Path) -> None:
    script = write(tmp_path / "work.js", SCRIPT)
    found = run(str(script), "--", *shlex.split(peer("fails-stubborn")))
    assert found.returncode == 1
    (pid,) = pids(found.stdout)
    assert wait_for(lambda: not is_alive(pid))


def test_what_it_cannot_work_with(tmp_path: Path) -> None:
    script = str(write(tmp_path / "work.js", SCRIPT))
    assert run().returncode == run(script, "codex").returncode == 2
    for context, message in (("", "is not JSON"), ("[]", "has no flow"), ('{"flow":1}', "has no flow")):
        found = run(script, "--", "true", stdin=context)
        assert (found.returncode, found.stdout) == (1, "")
        assert message in found.stderr
    assert "cannot read" in run(str(tmp_path / "no.js"), "--", "true").stderr
    assert "cannot start /no/such: No such file" in run(script, "--", "/no/such").stderr
    assert "the app-server exited with 0" in run(script, "--", "true").stderr

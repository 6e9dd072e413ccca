import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from stepwell.flows.context import DEFAULT_ENV, step_stdin
from stepwell.flows.executors.guard import Guard
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Flow
from stepwell.flows.result import FlowResult
from stepwell.flows.runners import RUNNERS
from stepwell.flows.runners.base import OutputKind, Tools
from stepwell.flows.runners.python import PythonRunner
from stepwell.flows.step import MAX_TAIL_BYTES, Outcome, StepFailure, run_step
from stepwell.model.errors import Invalid, Unavailable

from .packages import NOW, RUNTIME, STEP, Said, bun_dirs, event, package, run, tools, write

BUN = '[[steps]]\nname = "hello"\nrunner = "bun"\nscript = "exec/hello.ts"\n'
COMMAND = '[[steps]]\nname = "hello"\nrunner = "command"\n'
RESULT = 'FLOW_RESULT {"status":"completed"}'


def error(outcome: Outcome) -> StepFailure:
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.message
    return outcome.error


def result(outcome: Outcome) -> FlowResult:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def test_a_python_step(tmp_path: Path) -> None:
    assert result(run(package(tmp_path))).message == "hello Ada"


def test_a_bun_step(tmp_path: Path) -> None:
    """Fault 18: "as default" in a comment is no module."""
    package(tmp_path, BUN)
    script = """// used as default
const context: { flow: { event: { payload: { name: string } } } } = await Bun.stdin.json();
const message = `hello ${context.flow.event.payload.name}`;
console.log("FLOW_RESULT " + JSON.stringify({ status: "completed", message }));
"""
    write(tmp_path / "exec/hello.ts", script)
    said = Said()
    assert result(run(tmp_path, said=said)).message == "hello Ada"
    assert said.text("stdout").startswith("FLOW_RESULT ")


def test_a_command_step_is_a_script_a_packaged_program_or_one_of_the_path(tmp_path: Path) -> None:
    write(tmp_path / "exec/run", f"#!/bin/sh\necho \"$*\" >&2\necho '{RESULT}'\n", 0o755)
    for line in ('script = "exec/run"', 'command = ["exec/run", "a b"]', f"command = ['echo', '{RESULT}']"):
        assert result(run(package(tmp_path, COMMAND + line))).status == "completed"
    outside = run(package(tmp_path, COMMAND + 'command = ["../run"]'))
    assert (error(outside).type, error(outside).hint != "") == ("spawn", True)


def test_the_context_is_that_of_the_spec(tmp_path: Path) -> None:
    script = f"import sys; sys.stderr.write(sys.stdin.read()); print('{RESULT}')"
    root = package(tmp_path, top="[config]\ncommit = true", script=script)
    said = Said()
    run(root, said=said, what=event({"name": "Ä"}, trace=1))
    text = said.text("stderr")
    assert text.endswith("}\n")
    assert text.startswith('{\n  "flow": {\n    "name": "demo"')
    assert json.loads(text) == {
        "flow": {
            "name": "demo", "version": 1, "root": str(root), "step": "hello", "config": {"commit": True},
            "event": {"id": "ev-1", "type": "demo", "receivedAt": NOW, "payload": {"name": "Ä"}, "trace": 1},
        },
        "runtime": {
            "eventId": "ev-1", "runId": "run-1", "attemptId": "att-1", "replay": False, "launchedBy": "stepwell",
        },
    }  # fmt: skip


def test_no_config_no_key(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path))
    assert "config" not in json.loads(step_stdin(flow, flow.steps[0], event(), RUNTIME))["flow"]


def test_the_environment_is_an_allow_list(tmp_path: Path) -> None:
    """Fault 17: nothing passes that was not named, and nothing is on the command line."""
    script = f"import os, json, sys; json.dump(dict(os.environ), sys.stderr); print('{RESULT}')"
    root = package(tmp_path, STEP + 'env = ["TOKEN", "UNSET", "CODEX_FLOW_RUN_ID"]', script=script)
    environ = {
        "PATH": "/bin",
        "HOME": "/h",
        "CODEX_FLOW_PUSH": "1",
        "TOKEN": "t",
        "SECRET": "s",
        "CODEX_FLOW_RUN_ID": "x",
    }
    said = Said()
    run(root, said=said, environ=environ)
    seen = json.loads(said.text("stderr"))
    seen.pop("LC_CTYPE", None)
    assert seen.pop("STEPWELL_GUARD"), "finds what is left of the step when its worker was killed"
    assert seen == {
        "PATH": "/bin", "HOME": "/h", "CODEX_FLOW_PUSH": "1", "TOKEN": "t", "CODEX_FLOW_EVENT_ID": "ev-1",
        "CODEX_FLOW_RUN_ID": "run-1", "CODEX_FLOW_ATTEMPT_ID": "att-1", "CODEX_FLOW_REPLAY": "0",
        "CODEX_FLOW_LAUNCHED_BY": "stepwell",
    }  # fmt: skip
    assert len(DEFAULT_ENV) == 16


def test_a_script_that_went_after_the_load_is_told(tmp_path: Path) -> None:
    def gone(flow: Flow) -> None:
        (flow.root / "exec/hello.py").unlink()

    failed = error(run(package(tmp_path), before=gone))
    assert failed.type == "spawn"
    assert "exec/hello.py is not there" in failed.message
    assert failed.hint


@pytest.mark.parametrize("what", ["exec/hello.py", "work"])
def test_what_became_a_link_out_of_the_package_after_the_load_is_refused(tmp_path: Path, what: str) -> None:
    """Fault 35: a package that may be written to while we run does not lead us elsewhere."""
    root = package(tmp_path / "demo", STEP + 'cwd = "work"')
    (root / "work").mkdir()

    def swap(flow: Flow) -> None:
        (flow.root / what).rename(tmp_path / "outside")
        (flow.root / what).symlink_to(tmp_path / "outside")

    failed = error(run(root, before=swap))
    assert (failed.type, failed.message) == ("spawn", f"{what} leaves the package")


def test_the_working_directory(tmp_path: Path) -> None:
    script = f"import os, sys; sys.stderr.write(os.getcwd()); print('{RESULT}')"
    said = Said()
    run(package(tmp_path, script=script), said=said)
    root = package(tmp_path, STEP + 'cwd = "work"', script=script)
    missing = error(run(root))
    assert (missing.type, missing.message) == ("spawn", f"the working directory {tmp_path}/work does not exist")
    (tmp_path / "work").mkdir()
    run(root, said=said)
    assert said.text("stderr") == f"{tmp_path}{tmp_path}/work"


def test_a_program_whose_interpreter_is_missing_is_named(tmp_path: Path) -> None:
    root = package(tmp_path, COMMAND + 'command = ["./exec/hello.py"]')
    (root / "exec" / "hello.py").write_text("#!/no/such/interpreter\n")
    (root / "exec" / "hello.py").chmod(0o755)
    failed = error(run(root))
    assert (failed.type, failed.message) == ("spawn", f"cannot start {root}/exec/hello.py: No such file or directory")


@pytest.mark.parametrize(
    ("script", "kind", "code", "message"),
    [
        ("pass", "no_result", 0, "did not print a FLOW_RESULT line"),
        ("print('FLOW_RESULT nonsense')", "bad_result", 0, "not JSON"),
        (f"print('{RESULT}'); print('FLOW_RESULT {{}}')", "bad_result", 0, "status"),
        (f"print('{RESULT}'); raise SystemExit(3)", "exit", 3, "the step exited with 3"),
        (f"import os; print('{RESULT}'); os.kill(os.getpid(), 9)", "exit", -9, "ended by signal 9"),
        ("print('FLOW_RESULT ' + 'x' * 2_000_000)", "too_large", 0, "a line of stdout is over 1048576 bytes"),
        (f"print('x' * 2_000_000); print('{RESULT}')", "too_large", 0, "a line of stdout is over 1048576 bytes"),
    ],
)
def test_failures(tmp_path: Path, script: str, kind: str, code: int, message: str) -> None:
    failed = error(run(package(tmp_path, script=script)))
    assert (failed.type, failed.exit_code) == (kind, code)
    assert message in failed.message
    assert failed.hint


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ('print(\'FLOW_RESULT {"status":"changed"}\'); print(\'FLOW_RESULT {"status":"blocked"}\')', "blocked"),
        (f"import os, time; print('{RESULT}', flush=True); os.close(1); time.sleep(.3)", "completed"),
        (f"import os; os.write(1, bytes(range(128, 256)) * 9 + b'\\n{RESULT}\\n')", "completed"),
        (f"import os; os.write(1, b'\\xff {RESULT} \\n\\xc3')", "completed"),
        (f"import subprocess, sys; subprocess.Popen(['sleep', '30']); print('{RESULT}')", "completed"),
    ],
    ids=[
        "answers twice",
        "closes stdout early",
        "invalid UTF-8 before",
        "invalid UTF-8 around",
        "leaves a child behind",
    ],
)
def test_odd_ends_that_are_good(tmp_path: Path, script: str, status: str) -> None:
    began = time.monotonic()
    assert result(run(package(tmp_path, script=script))).status == status
    assert time.monotonic() - began < 5


def test_invalid_utf_8_inside_a_result_is_replaced(tmp_path: Path) -> None:
    script = """import os; os.write(1, b'FLOW_RESULT {"status":"completed","message":"a\\xffb"}')"""
    assert result(run(package(tmp_path, script=script))).message == "a\ufffdb"


def test_a_step_that_ignores_term_and_whose_children_hold_the_pipes_ends_in_time(tmp_path: Path) -> None:
    """Fault 14, from end to end."""
    script = """
import signal, subprocess, sys, time
signal.signal(15, signal.SIG_IGN)
for escapes in (False, True):
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(8)"],
                     start_new_session=escapes)
time.sleep(30)
"""
    began = time.monotonic()
    failed = error(run(package(tmp_path, STEP + "timeout_ms = 600", script=script)))
    assert failed.type == "timeout"
    assert time.monotonic() - began < 4


def test_a_timeout_is_told_even_when_the_step_ends_well_after_term(tmp_path: Path) -> None:
    """Fault 14: upstream took this for a success, or for an exit without a reason."""
    script = f"""
import signal, sys, time
def end(*_):
    print('{RESULT}', flush=True)
    sys.exit(0)
signal.signal(15, end)
time.sleep(30)
"""
    failed = error(run(package(tmp_path, STEP + "timeout_ms = 700", script=script), kill_grace_ms=5_000))
    assert (failed.type, failed.message) == ("timeout", "the step ran into its timeout of 700 ms")


def test_a_cancel_is_told(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path, script="import time; time.sleep(30)"))

    async def main() -> Outcome:
        cancel = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, cancel.set)
        return await run_step(
            flow, flow.steps[0], event(), runtime=RUNTIME, environ={}, tools=tools(), on_output=Said(), cancel=cancel,
            kill_grace_ms=100, post=Guard().post(),
        )  # fmt: skip

    assert error(asyncio.run(main())).type == "canceled"


def test_the_end_of_stderr_is_kept(tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('é' * 10_000 + 'the end'); sys.exit(1)"
    tail = error(run(package(tmp_path, script=script))).stderr
    assert tail.endswith("ééthe end")
    assert MAX_TAIL_BYTES - 1 <= len(tail.encode()) <= MAX_TAIL_BYTES


def test_all_output_is_passed_on_also_after_success(tmp_path: Path) -> None:
    """Fault 16."""
    said = Said()
    assert (
        result(run(package(tmp_path, script=f"print('working'); print('{RESULT}')"), said=said)).status == "completed"
    )
    assert said.text("stdout") == f"working\n{RESULT}\n"


class Agent(PythonRunner):
    output_kind: OutputKind = "agent"


def test_what_an_agent_says_is_kept_under_its_own_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNNERS, "python", Agent())
    said = Said()
    assert result(run(package(tmp_path, script=f"print('{RESULT}')"), said=said)).status == "completed"
    assert (said.text("agent"), said.text("stdout")) == (f"{RESULT}\n", "")


def test_next_events_are_handed_over(tmp_path: Path) -> None:
    """Fault 35: they were declared, and never read."""
    script = """print('FLOW_RESULT {"status":"changed","next":[{"type":"more","payload":[1]}]}')"""
    assert result(run(package(tmp_path, script=script))).next == ({"type": "more", "payload": [1]},)


def test_a_missing_tool_says_how_to_install_it(tmp_path: Path) -> None:
    package(tmp_path, BUN)
    write(tmp_path / "exec/hello.ts", "")
    failed = error(run(tmp_path, with_tools=Tools()))
    assert (failed.type, failed.message) == ("spawn", "the program bun was not found")
    assert "npm install bun" in failed.hint


def test_where_tools_are_found(tmp_path: Path) -> None:
    local = write(tmp_path / "node_modules/.bin/bun", "", 0o755)
    ambient = write(tmp_path / "bin/bun", "", 0o755)
    own = write(tmp_path / "own", "", 0o755)
    path = f"{tmp_path}/bin"
    assert Tools(search_path=path).find("bun") == str(ambient)
    assert Tools(search_path=path, dirs=(tmp_path,)).find("bun") == str(local)
    assert Tools({"bun": str(own)}, (tmp_path,), path).find("bun") == str(own)
    with pytest.raises(Unavailable):
        Tools({"bun": "/no/such"}, (tmp_path,), path).need("bun", "")


def test_python_is_ours_unless_configured(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path))
    argv = RUNNERS["python"].argv(flow, flow.steps[0], Tools(), {})
    assert argv == [sys.executable, "-u", str(tmp_path / "exec/hello.py")]
    other = RUNNERS["python"].argv(flow, flow.steps[0], Tools({"python": "/bin/sh"}), {})
    assert other[0] == "/bin/sh"


def test_a_packaged_program_is_checked_when_it_is_run(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path, COMMAND + 'command = ["bin/link"]'))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/link").symlink_to("/bin/true")
    with pytest.raises(Invalid, match="leaves the package"):
        RUNNERS["command"].argv(flow, flow.steps[0], Tools(), {})


def test_bun_is_installed_for_these_tests() -> None:
    assert Tools(dirs=bun_dirs()).find("bun"), "run `make test`, or npm install, in the repository first"


def test_a_node_step(tmp_path: Path) -> None:
    package(tmp_path, BUN.replace('"bun"', '"node"').replace(".ts", ".mjs"))
    write(
        tmp_path / "exec/hello.mjs",
        """import { readFileSync } from "node:fs";
const { flow } = JSON.parse(readFileSync(0, "utf8"));
console.log("FLOW_RESULT " + JSON.stringify({ status: "completed", message: `hello ${flow.event.payload.name}` }));
""",
    )
    assert result(run(tmp_path)).message == "hello Ada"
    missing = error(run(tmp_path, with_tools=Tools()))
    assert missing.message == "the program node was not found"
    assert "Install Node.js" in missing.hint

"""Executor systemd-run, with stand-ins that start the command in a session of its own, with the named variables only.

They are programs on a PATH, as the real ones. A real user manager needs cgroups to write to and a runtime folder of its
own, which tests cannot count on.
"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.clock import steady_s
from stepwell.flows.executors.guard import Guard, Late
from stepwell.flows.executors.systemd import SystemdExecutor, bus_environ, unit_name
from stepwell.flows.options import FlowOptions
from stepwell.flows.package import Flow
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import Outcome, StepFailure

from .packages import STEP, Said, package, run, write

OPTIONS = FlowOptions(executor="systemd-run")
RESULT = 'FLOW_RESULT {"status":"completed"}'
BUS = {"XDG_RUNTIME_DIR": "/run/user/7", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/bus"}

RUN = """#!{python}
import json, os, re, subprocess, sys
place, own = "{place}", dict(os.environ)
split = sys.argv.index("--")
options, command = sys.argv[1:split], sys.argv[split + 1 :]
value = lambda name: [one.partition("=")[2] for one in options if one.startswith(name + "=")]
names, (unit,), (cwd,) = value("--setenv"), value("--unit"), value("--working-directory")
json.dump({{"argv": sys.argv[1:], "env": own}}, open(place + "/seen.json", "w"))
if not own.get("XDG_RUNTIME_DIR"):
    sys.exit("Failed to connect to bus: No medium found")
if os.path.exists(place + "/" + unit):
    sys.exit("Failed to start transient service unit: Unit " + unit + ".service already exists.")
manager = {{"FROM_THE_MANAGER": "x", **BUS, **{{name: own[name] for name in names}}}}
command = [re.sub(r"[$]([$]|\\\\w+)", lambda m: "$" if m[1] == "$" else manager.get(m[1], ""), one) for one in command]
child = subprocess.Popen(command, cwd=cwd, env=manager, start_new_session=True)
open(place + "/" + unit, "w").write(str(child.pid))
code = child.wait()
try:
    os.killpg(child.pid, 9)  # what systemd does with the rest of a cgroup
except ProcessLookupError:
    pass
os.unlink(place + "/" + unit)
sys.exit(code if code >= 0 else 0 if code == -15 else 1)
"""
CONTROL = """#!{python}
import os, sys, time
assert sys.argv[1:3] == ["--user", "stop"] and os.environ["XDG_RUNTIME_DIR"], sys.argv
place = "{place}/" + sys.argv[3].removesuffix(".service")
open("{place}/stopped", "a").write(sys.argv[3] + "\\n")
if not os.path.exists(place):
    sys.exit(5)
pid = int(open(place).read())
os.killpg(pid, 15)
until = time.monotonic() + {grace}
while time.monotonic() < until and os.path.exists(place):
    time.sleep(0.01)
if os.path.exists(place):
    os.killpg(pid, 9)
while time.monotonic() < until + 3 and os.path.exists(place):  # the real one answers when the unit is gone
    time.sleep(0.01)
"""


class Stand:
    """The two programs in a folder, and what they noted."""

    def __init__(self, place: Path, grace: float = 0.3) -> None:
        self.place = place
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
        run = RUN.replace("**BUS", f"**{BUS!r}".replace("{", "{{").replace("}", "}}"))
        write(place / "systemd-run", run.format(python=python, place=place), 0o755)
        write(place / "systemctl", CONTROL.format(python=python, place=place, grace=grace), 0o755)
        self.tools = Tools(search_path=f"{place}:{os.environ['PATH']}")
        self.environ = {**BUS, "PATH": os.environ["PATH"], "TOKEN": "very-secret", "OTHER": "no"}

    def run(self, root: Path, **more: Any) -> Outcome:
        options = {"environ": self.environ, "with_tools": self.tools, "options": OPTIONS, **more}
        return run(root, **options)

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / "seen.json").read_text())
        return found

    def stopped(self) -> list[str]:
        return (self.place / "stopped").read_text().split()

    def units(self) -> list[str]:
        return [path.name for path in self.place.glob("codex-flow-*")]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path / "bin")


def error(outcome: Outcome) -> StepFailure:
    assert outcome.error is not None, outcome.result
    return outcome.error


def test_a_step_runs_as_a_unit_with_its_input_output_and_result(tmp_path: Path, stand: Stand) -> None:
    said = Said()
    script = f"import os; print(os.getcwd()); print('{RESULT}')"
    post = Guard().post()
    assert stand.run(package(tmp_path / "demo", script=script), said=said, post=post).result
    assert said.text("stdout").splitlines() == [str(tmp_path / "demo"), RESULT]
    argv = stand.seen()["argv"]
    assert argv[:5] == ["--user", "--collect", "--wait", "--pipe", "--quiet"]
    assert argv[5] == "--unit=" + unit_name("run-1", "att-1")
    assert argv[6].startswith("--working-directory=/")
    assert argv[6].endswith(post.mark), "by the way that is removed when it is too late"
    assert "--property=KillMode=control-group" in argv
    assert "--property=TimeoutStopSec=200ms" in argv
    assert "--property=RuntimeMaxSec=310200ms" in argv


def test_a_unit_that_has_not_begun_when_its_lease_ends_has_not_failed(tmp_path: Path, stand: Stand) -> None:
    program = stand.place / "systemd-run"
    program.write_text(program.read_text().replace("place, own", "import time; time.sleep(5)\nplace, own", 1))
    script = f"open('{tmp_path}/began', 'w')"
    with pytest.raises(Late):
        stand.run(package(tmp_path / "demo", script=script), post=Guard().post(steady_s() + 0.7))
    assert not (tmp_path / "began").exists()


def test_the_step_has_the_named_variables_only_and_their_values_are_nowhere_else(tmp_path: Path, stand: Stand) -> None:
    """Faults 11 and 17: systemd-run keeps the bus, the step does not get it, and no argument holds a value."""
    script = f"import os, json, sys; json.dump(dict(os.environ), sys.stderr); print('{RESULT}')"
    root, said = package(tmp_path / "demo", STEP + 'env = ["TOKEN"]', script=script), Said()
    assert stand.run(root, said=said).result
    seen = json.loads(said.text("stderr"))
    assert set(seen) - {"LC_CTYPE"} == {
        "PATH", "TOKEN", "CODEX_FLOW_EVENT_ID", "CODEX_FLOW_RUN_ID", "CODEX_FLOW_ATTEMPT_ID", "CODEX_FLOW_REPLAY",
        "CODEX_FLOW_LAUNCHED_BY", "STEPWELL_GUARD",
    }  # fmt: skip
    assert seen["TOKEN"] == "very-secret"
    called = stand.seen()
    assert "very-secret" not in json.dumps(called["argv"])
    assert "--setenv=TOKEN" in called["argv"]
    assert {name: called["env"][name] for name in BUS} == BUS
    assert "OTHER" not in called["env"]


def test_arguments_and_values_come_as_they_are(tmp_path: Path, stand: Stand) -> None:
    """The service manager expands $NAME in arguments, unless it is told not to."""
    program = """command = ["sh", "-c", 'echo "$ODD$1" >&2; echo "$2"', "sh", "$TOKEN $$ ${PATH}" """
    step = f"""[[steps]]\nname = "hello"\nrunner = "command"\nenv = ["ODD"]\n{program}, '{RESULT}']\n"""
    root, said = package(tmp_path / "demo", step), Said()
    stand.environ["ODD"] = "a b\n'\"$HOME é%h"
    assert stand.run(root, said=said).result
    assert said.text("stderr") == "a b\n'\"$HOME é%h$TOKEN $$ ${PATH}\n"


def test_the_exit_code_is_that_of_the_step(tmp_path: Path, stand: Stand) -> None:
    failed = error(stand.run(package(tmp_path / "demo", script="import sys; sys.exit('no luck')")))
    assert (failed.type, failed.exit_code, failed.stderr) == ("exit", 1, "no luck\n")
    failed = error(stand.run(package(tmp_path / "demo", script="import sys; sys.exit(203)")))
    assert (failed.type, failed.exit_code) == ("exit", 203)


STUBBORN = """
import signal, subprocess, sys, time, os
signal.signal(15, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(30)"])
os.write(1, b"%d %d\\n" % (os.getpid(), child.pid))
time.sleep(30)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_a_timeout_stops_the_unit_with_all_that_is_in_it(tmp_path: Path, stand: Stand) -> None:
    """Fault 14: the step ignores TERM, and a grandchild holds the pipes."""
    said, began = Said(), time.monotonic()
    failed = error(stand.run(package(tmp_path / "demo", STEP + "timeout_ms = 2500", script=STUBBORN), said=said))
    assert failed.type == "timeout"
    assert time.monotonic() - began < 6
    assert stand.stopped()[0] == unit_name("run-1", "att-1") + ".service"
    pids = [int(word) for word in said.text("stdout").split()]
    assert len(pids) == 2
    assert wait_for(lambda: all(map(gone, pids)))
    assert stand.units() == []


def test_a_cancel_stops_the_unit(tmp_path: Path, stand: Stand) -> None:
    cancel, said = asyncio.Event(), Said()

    def on_output(stream: str, text: str) -> None:
        said(stream, text)
        cancel.set()

    failed = error(stand.run(package(tmp_path / "demo", script=STUBBORN), said=on_output, cancel=cancel))
    assert failed.type == "canceled"
    pids = [int(word) for word in said.text("stdout").split()]
    assert wait_for(lambda: all(map(gone, pids)))


def test_what_breaks_on_our_side_stops_the_unit(tmp_path: Path, stand: Stand) -> None:
    pids: list[int] = []

    def refuse(stream: str, text: str) -> None:
        pids.extend(map(int, text.split()))
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        stand.run(package(tmp_path / "demo", script=STUBBORN), said=refuse)
    assert len(pids) == 2
    assert wait_for(lambda: all(map(gone, pids)))


def test_a_stop_that_hangs_is_bounded(tmp_path: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.flows.executors.systemd.STOP_MARGIN_MS", 100)
    write(stand.place / "systemctl", "#!/bin/sh\nexec sleep 30\n", 0o755)
    said, began = Said(), time.monotonic()
    failed = error(stand.run(package(tmp_path / "demo", STEP + "timeout_ms = 2000", script=STUBBORN), said=said))
    assert failed.type == "timeout"
    assert time.monotonic() - began < 6
    for pid in map(int, said.text("stdout").split()):
        os.kill(pid, signal.SIGKILL)  # what the unit's own limit would have done


@pytest.mark.parametrize("missing", ["systemd-run", "systemctl"])
def test_without_systemd_it_says_so(tmp_path: Path, stand: Stand, missing: str) -> None:
    (stand.place / missing).unlink()
    failed = error(stand.run(package(tmp_path / "demo"), with_tools=Tools(search_path=str(stand.place))))
    assert (failed.type, failed.message) == ("spawn", f"the program {missing} was not found")
    assert "direct" in failed.hint


def test_without_a_bus_it_says_so(tmp_path: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 11, as one sees it."""
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)  # of whom there is no /run/user
    environ = {"PATH": os.environ["PATH"]}
    failed = error(stand.run(package(tmp_path / "demo"), environ=environ))
    assert failed.type == "spawn"
    assert failed.message == "systemd-run did not start the step: Failed to connect to bus: No medium found"
    assert "XDG_RUNTIME_DIR" in failed.hint


def test_a_unit_that_is_there_already_is_not_taken_over(tmp_path: Path, stand: Stand) -> None:
    write(stand.place / unit_name("run-1", "att-1"), "1")
    failed = error(stand.run(package(tmp_path / "demo")))
    assert failed.type == "spawn"
    assert "already exists" in failed.message


def test_a_program_that_cannot_be_started_is_no_exit_of_the_step(tmp_path: Path, stand: Stand) -> None:
    write(tmp_path / "demo/run", "#!/no/such/interpreter\n", 0o755)
    root = package(tmp_path / "demo", '[[steps]]\nname = "hello"\nrunner = "command"\nscript = "run"\n')
    failed = error(stand.run(root))
    assert failed.type == "spawn"
    assert failed.message.endswith(f"cannot start {root}/run: No such file or directory")
    assert "#!" in failed.hint


def test_a_working_directory_that_is_not_there(tmp_path: Path, stand: Stand) -> None:
    root = package(tmp_path / "demo", STEP + 'cwd = "work"')
    (root / "work").mkdir()

    def remove(flow: Flow) -> None:
        (flow.root / "work").rmdir()

    failed = error(stand.run(root, before=remove))
    assert (failed.type, "does not exist" in failed.message) == ("spawn", True)


def test_no_room_for_a_mark_is_told(tmp_path: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    failed = error(stand.run(package(tmp_path / "demo")))
    assert (failed.type, failed.message[:33]) == ("spawn", "no temporary folder can be made: ")


def test_nothing_is_left_behind(tmp_path: Path, stand: Stand) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    stand.environ["XDG_RUNTIME_DIR"] = str(runtime)
    assert stand.run(package(tmp_path / "demo")).result
    assert str(runtime) in " ".join(stand.seen()["argv"])
    assert list(runtime.iterdir()) == []
    assert stand.units() == []


def test_unit_names() -> None:
    """Spec 4.5, with the attempt in the hash."""
    digest = hashlib.sha256(b"run_AB.1.1").hexdigest()[:10]
    assert unit_name("run_AB", "run_AB.1.1") == f"codex-flow-run-ab-{digest}"
    assert unit_name("run_AB", "run_AB.1.2") != unit_name("run_AB", "run_AB.1.1")
    assert unit_name("é/..", "a").startswith("codex-flow-")
    long = unit_name("x" * 400, "a")
    assert len(long) == len("codex-flow-") + 48 + 11


def test_where_the_user_manager_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bus_environ({**BUS, "OTHER": "x"}) == BUS
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)
    assert bus_environ({"XDG_RUNTIME_DIR": ""}) == {}


def test_small_files_lie_where_the_user_manager_has_its_own_if_that_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, elsewhere = SystemdExecutor(), Path(tempfile.gettempdir())
    assert executor.place({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path
    for not_there in ("runtime", str(tmp_path / "missing")):
        assert executor.place({"XDG_RUNTIME_DIR": not_there}) == elsewhere
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert executor.place({"XDG_RUNTIME_DIR": str(tmp_path)}) == elsewhere, "its owner could replace what we put there"

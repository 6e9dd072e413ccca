"""Real I/O in a body raises NondeterministicCall with the line, and nothing of it happens (orchestrator E.5 no. 85)."""

import asyncio
import concurrent.futures
import gc
import glob
import linecache
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
import zoneinfo
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import stepwell.client
from stepwell.functions.errors import NondeterministicCall
from stepwell.workflow import ambient
from stepwell.workflow.ambient import Environment
from stepwell.workflow.loop import WorkflowLoop
from tests.workflow.bodies import BodyHost, of

Act = Callable[[Path], Any]
IO: dict[str, Act] = {
    "open to write": lambda path: open(path / "new", "w"),  # noqa: PTH123, SIM115 - bodies do it
    "open to append": lambda path: open(path / "new", "a"),  # noqa: PTH123, SIM115 - bodies do it
    "open to read": lambda path: open(path / "old"),  # noqa: PTH123, SIM115 - bodies do it
    "os.open": lambda path: os.open(path / "new", os.O_CREAT | os.O_WRONLY),
    "read_text": lambda path: (path / "old").read_text(),
    "write_text": lambda path: (path / "new").write_text("x"),
    "unlink": lambda path: (path / "old").unlink(),
    "rename": lambda path: (path / "old").rename(path / "new"),
    "mkdir": lambda path: (path / "new").mkdir(),
    "listdir": lambda path: os.listdir(path),  # noqa: PTH208 - bodies do it
    "scandir": lambda path: list(os.scandir(path)),
    "glob": lambda path: glob.glob("*", root_dir=path),  # noqa: PTH207 - bodies do it
    "iterdir": lambda path: list(path.iterdir()),
    "copy": lambda path: shutil.copy(path / "old", path / "new"),
    "rmtree": lambda path: shutil.rmtree(path),
    "mkstemp": lambda path: tempfile.mkstemp(dir=path),
    "system": lambda path: os.system(f"touch {path}/new"),
    "run": lambda path: subprocess.run(["touch", path / "new"]),
    "fork": lambda path: os.fork() or os._exit(0),
    "kill": lambda path: os.kill(os.getpid(), 0),
    "putenv": lambda path: os.putenv("STEPWELL_TEST", "1"),
    "socket": lambda path: socket.socket(),
    "getaddrinfo": lambda path: socket.getaddrinfo("localhost", 80),
    "urlopen": lambda path: urllib.request.urlopen("http://localhost:1"),
    "sqlite": lambda path: sqlite3.connect(path / "new"),
    "a thread": lambda path: threading.Thread(target=(path / "new").touch).start(),
    "an executor": lambda path: concurrent.futures.ThreadPoolExecutor().submit((path / "new").touch),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "old").write_text("kept")
    return tmp_path


@pytest.mark.parametrize("name", IO)
def test_real_io_in_a_body_is_refused_with_the_line(environment: Environment, place: Path, name: str) -> None:
    act = IO[name]
    with pytest.raises(
        NondeterministicCall, match=rf"test_audit\.py:{act.__code__.co_firstlineno} in <lambda>"
    ) as error:
        of(lambda: act(place))
    assert "ctx.step" in error.value.hint
    assert [one.name for one in place.iterdir()] == ["old"]
    assert (place / "old").read_text() == "kept"


def test_io_of_the_body_s_asyncio_is_refused(environment: Environment) -> None:
    for act in (lambda: asyncio.to_thread(print), lambda: asyncio.open_connection("localhost", 1)):

        async def body(act: Callable[[], Any] = act) -> None:
            await act()

        with pytest.raises(NondeterministicCall, match=r"ctx.step|real I/O"):
            BodyHost().run(body)


def test_a_callback_of_the_loop_is_the_body_s_too(environment: Environment, place: Path) -> None:
    async def body() -> None:
        asyncio.get_running_loop().call_soon(os.remove, place / "old")

    with pytest.raises(NondeterministicCall, match="in a callback of the event loop"):
        BodyHost().run(body)
    assert (place / "old").exists()


def test_outside_of_bodies_nothing_is_refused(environment: Environment, place: Path) -> None:
    of(lambda: None)
    (place / "new").write_text("x")
    assert subprocess.run(["true"], check=True).returncode == 0
    sqlite3.connect(":memory:").close()

    async def main() -> bytes:
        of(lambda: None)
        return await asyncio.to_thread((place / "new").read_bytes)

    assert asyncio.run(main()) == b"x"


def test_another_thread_is_free_while_a_body_runs(environment: Environment, place: Path) -> None:
    begun, done = threading.Event(), threading.Event()

    def other() -> None:
        begun.wait(5)
        (place / "new").write_text("x")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def body() -> bool:
        begun.set()
        return done.wait(5)

    assert of(body)
    thread.join()


def test_a_body_may_import_and_show_its_lines(
    environment: Environment, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "till_of_the_shop.py").write_text(
        f"from pathlib import Path\nOLD = Path({str(place / 'old')!r}).read_text()"
    )
    monkeypatch.syspath_prepend(place)

    def body() -> str:
        return str(__import__("till_of_the_shop").OLD)

    assert of(body) == "kept"
    monkeypatch.delitem(sys.modules, "till_of_the_shop")

    def failing() -> str:
        try:
            return str([][1])  # the line that is read
        except IndexError:
            return traceback.format_exc()

    assert "# the line that is read" in of(failing)


def test_a_body_may_look_up_a_time_zone(environment: Environment) -> None:
    zoneinfo.ZoneInfo.clear_cache()
    zone = of(lambda: zoneinfo.ZoneInfo("UTC"))
    assert str(zone) == "UTC"


def test_a_body_may_look_at_a_line_of_source(environment: Environment) -> None:
    linecache.clearcache()
    assert of(lambda: linecache.getline(__file__, 1)).startswith('"""Real I/O')


LIBRARY = """
import os
def read(path):
    with open(path / "old") as file: return file.read()
def write(path): open(path / "new", "a").close()
def create(path): os.close(os.open(path / "new", os.O_CREAT | os.O_WRONLY))
"""


@pytest.mark.parametrize("file", ["/venv/site-packages/library.py", stepwell.client.__file__])
def test_a_library_may_read_its_data_and_write_nothing(environment: Environment, place: Path, file: str) -> None:
    library: dict[str, Any] = {}
    exec(compile(LIBRARY, file, "exec"), library)
    assert of(lambda: library["read"](place)) == "kept"
    for act in (library["write"], library["create"]):
        with pytest.raises(NondeterministicCall, match=r"test_audit\.py|bodies\.py"):
            of(partial(act, place))
    assert not (place / "new").exists()


def test_finalizers_of_others_that_the_collector_runs_in_a_body_are_free(environment: Environment, place: Path) -> None:
    class Foreign:
        def __del__(self) -> None:
            (place / "new").write_text("closed")

    foreign: Any = Foreign()
    foreign.itself = foreign
    del foreign
    of(gc.collect)
    assert (place / "new").read_text() == "closed"


def test_signal_handlers_are_free(environment: Environment, place: Path) -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        (place / "new").write_text("signal")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        of(lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (place / "new").read_text() == "signal"


def test_what_a_body_catches_is_the_error_itself(environment: Environment) -> None:
    def body() -> str:
        try:
            socket.socket()
        except NondeterministicCall as error:
            return error.code
        return ""

    assert of(body) == "nondeterministic_call"


def test_the_hook_refuses_nothing_after_uninstall(environment: Environment, place: Path) -> None:
    ambient.uninstall(WorkflowLoop)
    of(lambda: (place / "new").write_text("x"))
    assert (place / "new").exists()


OPT_OUT = """
import sys
hooks = []
sys.addaudithook, real = lambda hook: hooks.append(hook), sys.addaudithook
from stepwell.functions.errors import NondeterministicCall
from stepwell.workflow import ambient
from stepwell.workflow.loop import WorkflowLoop
from tests.workflow.bodies import of
ambient.install(WorkflowLoop)
of(lambda: open(sys.argv[1], "w").close())
try:
    of(lambda: __import__("time").sleep(0))
except NondeterministicCall:
    print(len(hooks))
"""


@pytest.mark.parametrize(("setting", "ends", "hooks"), [("0", 0, "0\n"), ("1", 0, "1\n")])
def test_the_environment_says_whether_there_is_a_hook(place: Path, setting: str, ends: int, hooks: str) -> None:
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", OPT_OUT, place / "new"],
        env={**os.environ, "STEPWELL_AUDIT": setting, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (ends, hooks), ran.stderr


AT_THE_END = """
import os, sys
from stepwell.functions.guard import Guard
from stepwell.workflow import ambient
from stepwell.workflow.loop import WorkflowLoop
ambient.install(WorkflowLoop).close()
Guard(1_000).close()
class Left:
    def __del__(self, audit=sys.audit):
        audit("open", "f", "r", 0)
        audit("os.remove", "f", -1)
os.left = [Left(), *sys.modules.values()]  # names are taken from a module that somebody has, from the last one on
"""


def test_what_is_audited_while_the_interpreter_ends_disturbs_nothing() -> None:
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", AT_THE_END],
        env={**os.environ, "PYTHONPATH": str(root / "src")}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")

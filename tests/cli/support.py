"""The command line as a program named `stepwell`, in a folder of its own."""

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from stepwell.cli.main import cli
from tests.server.support import OK, at_home, environ, flow
from tests.support.nursery import Fork, run

__all__ = ["OK", "PATIENCE_S", "Shop", "flow", "on_terminal", "program", "shell_environ", "write_event"]

PATIENCE_S = 30.0
#: `program()` without a file: its name, and no folder of its own to import from.
CODE = "import sys; sys.argv[0] = 'stepwell'; del sys.path[0]; from stepwell.cli.main import main; main()"
STEPWELL = (sys.executable, "-c", CODE)


@cache
def program() -> str:
    """A script like the one that an installation makes, on this tree's code."""
    folder = tempfile.mkdtemp(prefix="stepwell-cli-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder) / "stepwell"
    path.write_text(f"#!{sys.executable}\nfrom stepwell.cli.main import main\nmain()\n")
    path.chmod(0o755)
    return str(path)


def shell_environ(**more: str) -> dict[str, str]:
    """An environment whose PATH has the program."""
    return environ(PATH=f"{Path(program()).parent}{os.pathsep}{os.environ['PATH']}", **more)


def on_terminal(command: Sequence[str], cwd: Path, *, stdin: str = "", **env: str) -> tuple[int, str]:
    """Exit code of a command whose outputs are a terminal, and all that it printed there."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**shell_environ(), "TERM": "xterm", **env},
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    assert process.stdin is not None
    process.stdin.write(stdin.encode())
    process.stdin.close()
    said = b""
    with contextlib.suppress(OSError):  # that is how the end of a terminal reads
        while piece := os.read(master, 65_536):
            said += piece
    os.close(master)
    return process.wait(PATIENCE_S), said.decode().replace("\r\n", "\n")


class Shop:
    """A folder with flows, and the command line in it."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def start(self, *args: str | bytes, **env: str) -> subprocess.Popen[str]:
        """A command that goes on, and hears Ctrl-C: whoever runs these tests in the background has it ignored."""
        return Fork(
            [*STEPWELL, *args],
            cwd=self.cwd,
            env=at_home(self.cwd, **env),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, *args: str | bytes, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """A command that has ended, whatever came of it, without a stack."""
        done = run([*STEPWELL, *args], cwd=self.cwd, env=at_home(self.cwd, **env), stdin=stdin, timeout=PATIENCE_S)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *args: str, code: int = 0, **more: Any) -> str:
        """What a command prints that ends with this code."""
        done = self.call(*args, **more)
        assert done.returncode == code, done
        return done.stdout

    def text(self, *args: str, code: int = 0, **more: Any) -> str:
        """The same as a person sees it."""
        return self.ok(*args, "--no-json", code=code, **more)

    def json(self, *args: str, code: int = 0, **more: Any) -> dict[str, Any]:
        """The same with --json, and in this process: most tests ask so, and a start costs more than an answer."""
        found: dict[str, Any] = json.loads(self._here(*args, "--json", code=code, **more))
        return found

    def _here(self, *args: str, code: int, stdin: str | None = None, **env: str) -> str:
        before, wanted = dict(os.environ), at_home(self.cwd, **env)
        with contextlib.chdir(self.cwd):
            try:
                os.environ.clear()
                os.environ.update(wanted)
                done = CliRunner().invoke(cli, args, input=stdin)
            finally:
                os.environ.clear()
                os.environ.update(before)
        assert done.exit_code == code, done.output
        return done.stdout

    def refused(self, *args: str | bytes, **env: str) -> str:
        """The two lines that a refusal prints: the error, and what to do."""
        done = self.call(*args, **env)
        assert (done.returncode, done.stdout) == (1, ""), done
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: "), done.stderr
        assert hint.startswith("hint:  "), done.stderr
        return done.stderr

    def misused(self, *args: str, **env: str) -> str:
        """What wrong usage prints."""
        done = self.call(*args, **env)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "--help" in done.stderr
        return done.stderr

    def fire(
        self, event_id: str = "e", payload: Any = None, code: int = 0, type_: str = "demo"
    ) -> list[dict[str, Any]]:
        """The results of an event whose runs were run here and now."""
        path = write_event(self.cwd, event_id, payload, type_)
        results: list[dict[str, Any]] = self.json("flow", "fire", "--event", path, code=code)["results"]
        return results


def write_event(cwd: Path, event_id: str = "e", payload: Any = None, type_: str = "demo") -> str:
    """A file with an event."""
    path = cwd / "event.json"
    path.write_text(json.dumps({"id": event_id, "type": type_, "payload": payload}))
    return str(path)

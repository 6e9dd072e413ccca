"""A `stepwell` command of the demo that goes on in a process of its own, and may be killed."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click

from stepwell.cli.common import clean
from stepwell.model.errors import Unavailable

LEASE_S = 10
#: Short, so that a takeover can be waited for, and that a run which waits leaves its worker's memory soon.
SETTINGS = {"STEPWELL_LEASE_MS": str(LEASE_S * 1_000), "STEPWELL_LINGER_MS": "500"}


def stepwell(*args: str) -> list[str]:
    """The command line of `stepwell ARGS`, whatever is on the PATH."""
    return [sys.executable, "-m", "stepwell.cli", *args]


def call(home: Path, *args: str) -> str:
    """What a command prints, shown as a person would type and see it. Raises ClickException when it fails."""
    click.secho(f"$ {shlex.join(['stepwell', *args])}", dim=True)
    command = stepwell(*args, "--no-json", "--cwd", str(home))
    done = subprocess.run(command, env=_environ(), stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ours
    for line in done.stdout.splitlines():
        click.echo(f"  {clean(line)}")
    if done.returncode != 0:
        raise click.ClickException(f"stepwell {args[0]} ended with {done.returncode}; please report what is above")
    return done.stdout


def _environ() -> dict[str, str]:
    """Ours without the user's own database, address and secret."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")}
    return {**kept, **SETTINGS}


class Process:
    """`stepwell ARGS` on a folder; `first` is how the line begins that it says when it is ready."""

    def __init__(self, home: Path, first: str, *args: str) -> None:
        self._command, self._first = stepwell(*args, "--cwd", str(home), "--drain", "5"), first
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Starts it; the line that it said. Raises `Unavailable` when it says something else, or nothing."""
        self._process = subprocess.Popen(self._command, env=_environ(), stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(self._first):
            raise Unavailable("the demo's process did not start", hint=f"It said: {line!r}. Try `stepwell serve`.")
        click.echo(clean(line.rstrip()))
        return line

    def kill(self) -> None:
        """kill -9: no warning, no cleaning up."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """Ends it well, if it still goes on."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
            self._process.kill()
        if self._process is not None:
            self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

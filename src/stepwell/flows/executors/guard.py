"""Kills a step's processes when our own process dies without having done so (SIGKILL, out of memory).

A guard is one `/bin/sh` a step that waits on a pipe from us. The kernel closes the pipe when we are gone, however that
came about, and the guard then kills the step's process group. A guard ignores TERM, INT and HUP, and sits in a session
of its own.

Why not PR_SET_PDEATHSIG: it reaches the direct child only, not what that has started; it fires when the *thread* that
forked ends; and to set it, Python has to fork instead of vfork (`preexec_fn`: 28 ms in a process of 800 MB, unsafe
beside threads) or to start through `setpriv`, which costs as much as a guard and is not everywhere.

The start of a step and the line that names its group to the guard are two moments. For a death in between, the step
has a mark in its environment, and a guard that was left alone also kills whatever has it (Linux). That reaches
processes that left the group as well.

Not covered: systems without `/bin/sh`; processes that left the group on systems without /proc, or that emptied their
environment; our children made by a bare fork, which hold the pipe open.
"""

import contextlib
import os
import secrets
import subprocess

#: The variable that marks all processes of one attempt.
MARK = "STEPWELL_GUARD"
_SHELL = "/bin/sh"
# The first line names the group. The end of the pipe means that we died; when all goes well, we kill the guard.
_SCRIPT = """
trap "" TERM INT HUP
read -r group && read -r nothing
[ -n "$group" ] && kill -s KILL -- "-$group"
for pause in 0 0.2 0.5; do
  sleep $pause
  for found in $(grep -ls "$1" /proc/[0-9]*/environ); do
    pid=${found#/proc/}
    kill -s KILL "${pid%/environ}"
  done
done
"""


class Guard:
    """Made before the step is started, so that no time goes by unguarded; told the group at once after."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._process = _start(f"{MARK}={self._mark}")

    @property
    def environ(self) -> dict[str, str]:
        """What the process to guard needs in its environment."""
        return {MARK: self._mark}

    def watch(self, group: int) -> None:
        """Name the process group to kill."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{group}\n".encode())

    def close(self) -> None:
        """Dismiss the guard; the group is left alone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def _start(mark: str) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(  # noqa: S603 - a fixed program with a fixed script
            [_SHELL, "-c", _SCRIPT, "stepwell-guard", mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
    except OSError:  # no shell, or no process to be had; the step's own start will say so
        return None

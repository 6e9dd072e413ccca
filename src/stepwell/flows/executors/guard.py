"""Kills a step's processes when our own process dies without having done so (SIGKILL, out of memory).

A guard is one `/bin/sh` a step that waits on a pipe from us. The kernel closes the pipe when we are gone, however that
came about, and the guard then kills the step's process group. A guard ignores TERM, INT and HUP, and sits in a session
of its own.

Why not PR_SET_PDEATHSIG: it reaches the direct child only, not what that has started; it fires when the *thread* that
forked ends; and to set it, Python has to fork instead of vfork (`preexec_fn`: 28 ms in a process of 800 MB, unsafe
beside threads) or to start through `setpriv`, which costs as much as a guard and is not everywhere.

Not covered: processes that left the group (setsid); our death in the instant between the start of a step and the line
that names it to its guard; systems without `/bin/sh`; our children made by a bare fork, which hold the pipe open.
"""

import contextlib
import os
import subprocess

_SHELL = "/bin/sh"
# The first line names the group. Its end, or the lack of a second line, means that we died.
_SCRIPT = 'trap "" TERM INT HUP; read -r group || exit 0; read -r done || kill -s KILL -- "-$group"'


class Guard:
    """Made before the step is started, so that no time goes by unguarded; told the group at once after."""

    def __init__(self) -> None:
        self._process = _start()

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


def _start() -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(  # noqa: S603 - a fixed program with a fixed script
            [_SHELL, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except OSError:  # no shell, or no process to be had; the step's own start will say so
        return None

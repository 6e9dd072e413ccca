"""Sees to it that no step outlives its worker or its lease, also when the worker cannot see to it itself.

A worker that was killed, was out of memory, was stopped (SIGSTOP), or hangs, can end nothing. So it has one guard: a
process in a session of its own, `guard_process`, that knows the process group and the end of the lease of each attempt.
It kills the group when the worker is dead, or has not extended the lease in time: another worker may begin the next
attempt then, and the two must not overlap.

The start of a step and the line that names its group are two moments. For a death in between, the step has a mark in
its environment, and the guard also kills whatever has it (Linux). That reaches processes that left the group as well,
so it looks for the mark also when an attempt is over: a daemon of a step does not outlive it. The worker has killed
the group by then; it does not look for the mark itself, since that would hold up all that its event loop does.

A worker may also be stopped for longer than a lease before a step begins, and go on as if nothing had been. A step that
is short does what it does before anybody could kill it. So it is started in a folder that it reaches by a link, and the
guard removes the link when it is too late to begin: a process that was forked after that cannot change into it.

Why not PR_SET_PDEATHSIG: it reaches the direct child only, not what that has started; it fires when the *thread* that
forked ends; and to set it, Python has to fork instead of vfork (`preexec_fn`: 28 ms in a process of 800 MB, unsafe
beside threads) or to start through `setpriv`, which costs a process for each step and is not everywhere.

Not covered: processes that left the group on systems without /proc, or that emptied their environment; our children
made by a bare fork, which hold the pipe open; a worker and a guard that are frozen together, or a worker and the child
that it forks, between the last look at the clock and the program, if they go on before the guard does. A worker and a
guard that are killed together leave links, which lead nowhere sooner or later.
"""

import contextlib
import logging
import math
import os
import secrets
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from stepwell.engine.clock import steady_s
from stepwell.flows.executors.base import temporary_place

log = logging.getLogger("stepwell.flows")
#: The variable that marks all processes of one attempt.
MARK = "STEPWELL_GUARD"
PROCESS = Path(__file__).with_name("guard_process.py")
# How long a guard that was dismissed may take; longer only if it has to kill something.
_LAST_S = 5.0


class Late(Exception):
    """The lease was over, or nearly, before the step began: it has not begun."""


class Post:
    """One attempt under guard. `environ` is what its processes need in their environment.

    It may begin until `spare_s` before its lease ends.
    """

    def __init__(self, guard: "Guard", ends_at: float, spare_s: float) -> None:
        self._guard, self._ends_at, self._spare_s = guard, ends_at, spare_s
        self._group = 0
        self._way: Path | None = None
        self.mark = secrets.token_hex(16)
        self.environ = {MARK: self.mark}

    @property
    def line(self) -> bytes:
        """All that the guard knows of it: its group, until when it may begin, and until when it may go on."""
        return f"{self.mark} {self._group} {self._begins_by} {self._ends_at}\n".encode()

    @property
    def _begins_by(self) -> float:
        return self._ends_at - self._spare_s

    @property
    def last_line(self) -> bytes:
        """That it is over."""
        return f"{self.mark} {self._group} over over\n".encode()

    def way(self, folder: Path) -> Path:
        """The path by which its process has to reach `folder`: it leads there as long as it is not too late to begin.

        Where no link can be made, as on a full disk, it is the folder itself: then only the worker's own look at its
        clock is between a lease that is over and the step.
        """
        if self._way is None:
            way = self._guard.link(self.mark, folder.absolute())
            if way is None:
                return folder
            self._way = way
            self._guard.tell(self)  # now that it is there: what is over already is removed
        return self._way

    @property
    def late(self) -> bool:
        """Whether it is too late to begin."""
        return self._is_shut or steady_s() > self._begins_by

    @property
    def _is_shut(self) -> bool:
        return self._way is not None and not os.path.islink(self._way)  # noqa: PTH114 - what cannot be seen is none

    def watch(self, group: int) -> None:
        """Name the process group to kill."""
        self._group = group
        self._guard.tell(self)

    def until(self, ends_at: float) -> None:
        """The lease was extended, or is said to be over, by the steady clock in seconds."""
        self._ends_at = ends_at
        self._guard.tell(self)

    def close(self) -> None:
        """The attempt is over: its group is left alone from here on, and what has left it is killed."""
        if self._way is not None and not self._is_shut:
            with contextlib.suppress(OSError):
                self._way.unlink()
            self._way = None
        self._guard.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Guard:
    """The guard of one worker. Its process starts with the first attempt, and again when somebody has killed it.

    Leases are extended from the thread of the heartbeats, and attempts begin and end on the event loop. `place` is the
    folder of the links.
    """

    def __init__(self, place: Path | None = None) -> None:
        #: What the paths of the links begin with; the mark of the attempt follows.
        self._ways = str((place or temporary_place()) / "stepwell-")
        self._warned = False
        self._posts: dict[str, Post] = {}
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._dismiss: weakref.finalize[..., Guard] | None = None

    def post(self, ends_at: float = math.inf, spare_s: float = 0.0) -> Post:
        """Guard an attempt whose lease ends then, before it starts, so that no moment goes by unguarded."""
        post = Post(self, ends_at, spare_s)
        with self._lock:
            self._posts[post.mark] = post
            self.tell(post)
        return post

    def link(self, mark: str, folder: Path) -> Path | None:
        """A link to a folder that leads there; None where there can be none."""
        way = Path(f"{self._ways}{mark}")
        try:
            way.symlink_to(folder)
            if way.is_dir() or not folder.is_dir():
                return way
            way.unlink()
            why = f"{way.parent} follows no links"
        except OSError as error:
            why = str(error)
        if not self._warned:
            log.warning("%s: if this worker is stopped at the wrong moment it may begin a step late", why)
        self._warned = True
        return None

    def tell(self, post: Post) -> None:
        """Pass on what is new about an attempt."""
        with self._lock:
            if post.mark in self._posts:
                self._write(post.line)

    def forget(self, post: Post) -> None:
        """Watch this attempt no more, and kill what it has left behind."""
        with self._lock:
            if self._posts.pop(post.mark, None) is not None and self._process is not None:  # else all was killed
                self._write(post.last_line)

    def close(self) -> None:
        """Dismiss the guard's process; what is still under guard is killed."""
        with self._lock:
            if self._dismiss is not None:
                self._dismiss()
            self._process = None

    def _write(self, line: bytes) -> None:
        """A line is written as a whole or not at all. A guard that is gone, or that reads no more, is replaced."""
        try:
            if self._process is not None and self._process.poll() is None and self._process.stdin is not None:
                os.write(self._process.stdin.fileno(), line)
                return
        except OSError:
            pass
        self._replace(line)

    def _replace(self, line: bytes) -> None:
        if self._process is not None:
            self._process.kill()  # before its pipe is closed, which it would take for our death
        self.close()
        with contextlib.suppress(OSError):  # no process to be had; the step's own start will say so
            self._process = process = _start(self._ways)
            self._dismiss = weakref.finalize(self, _end, process)
            assert process.stdin is not None
            for told in (*(post.line for post in self._posts.values()), line):
                os.write(process.stdin.fileno(), told)
            os.set_blocking(process.stdin.fileno(), False)  # one that is stuck must not hold us up


def _start(ways: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-I", "-S", str(PROCESS), MARK, ways],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        env={},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_LAST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Processes of tests that start in some ms: forks of one that has imported everything, where an interpreter needs 200.

The nursery has no threads, open files or settings of its own, so a fork has what an interpreter has after its imports:
arguments, folder, environment and streams are those that a test gives. It buries its children, and tells how each
ended through a pipe. What a start itself does is seen where tests start an interpreter: demo, docs, examples, shell.
"""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, AnyStr

from tests.support.nursery_process import NUMBER

__all__ = ["Fork", "run"]

ROOT = Path(__file__).parents[2]


@cache
def _nursery() -> socket.socket:
    """Takes orders: files of the order itself, of the three streams, and of the pipe for pid and status."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STEPWELL_", "PYTHON"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.nursery_process", str(its.fileno())],
        cwd=ROOT, env=kept, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    its.close()

    def end() -> None:
        mine.close()
        process.wait()

    atexit.register(end)
    return mine


class Fork(subprocess.Popen[AnyStr]):
    """A `Popen` of `[sys.executable, "-m" or "-c", ...]` out of the nursery.

    `Popen` has no door for whoever starts processes another way, so this replaces the three methods that do.
    """

    _close_pipe_fds: Callable[..., None]
    _waitpid_lock: threading.Lock
    _end: int

    def _execute_child(self, args: Sequence[str | bytes], *rest: Any) -> None:
        _, preexec, _, _, cwd, env = rest[:6]
        pipes = rest[9:15]
        assert preexec is None, "nothing runs in a fork before its program"
        words = [os.fsdecode(arg) for arg in args]
        assert words[0] == sys.executable
        order = {
            "args": words[1:],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        theirs = (pipes[0], pipes[3], pipes[5])
        streams: list[int] = [number if given == -1 else given for number, given in enumerate(theirs)]
        self._end, told = os.pipe()
        letter = os.memfd_create("order")
        try:
            os.write(letter, json.dumps(order).encode())
            socket.send_fds(_nursery(), [b"!"], [letter, *streams, told])
        finally:
            os.close(letter)
            os.close(told)
            self._close_pipe_fds(*pipes)
        self.pid = self._hear() or 0
        self._child_created = True

    def _hear(self, timeout: float | None = None) -> int | None:
        """The next number, or None when it takes too long."""
        waiting = select.poll()
        waiting.register(self._end, select.POLLIN)
        if not waiting.poll(None if timeout is None else timeout * 1_000):
            return None
        number = os.read(self._end, NUMBER.size)
        assert number, "the nursery is gone"
        return int(NUMBER.unpack(number)[0])

    def _wait(self, timeout: float | None) -> int:
        with self._waitpid_lock:
            if self.returncode is None and not self._ended(timeout):
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                if self.returncode is None:
                    self._ended(0)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _ended(self, timeout: float | None) -> bool:
        status = self._hear(timeout)
        if status is not None:
            os.close(self._end)
            self.returncode = os.waitstatus_to_exitcode(status)
        return status is not None


def run(
    command: Sequence[str | bytes], *, cwd: Path | None = None, env: Mapping[str, str], stdin: str | None = None,
    timeout: float,
) -> "subprocess.CompletedProcess[str]":  # fmt: skip
    """A command that has ended, with what it said: `subprocess.run` for a fork."""
    begin = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with Fork(
        command, cwd=cwd, env=env, text=True, stdin=begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)

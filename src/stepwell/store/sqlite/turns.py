"""The lock that lets processes take turns at one file."""

import fcntl
import os
import threading
from pathlib import Path

from stepwell.store.port import Retry


class TurnLock:
    """A file lock taken before BEGIN: the system wakes who waits, where SQLite's own busy handler lets one starve.

    A wait is bounded, since the holder may be a process that was stopped. The system call is not, so a wait that is not
    over at once is left to a thread; when nobody wants the lock any more by then, the thread gives it back.
    """

    def __init__(self, path: Path, *, wait_s: float) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._wait_s = wait_s
        self._state = threading.Condition()
        self._pending = self._wanted = self._got = False

    def acquire(self) -> None:
        """Takes the lock, or raises `Retry` after `wait_s`."""
        with self._state:
            if not self._pending:
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._pending = True
                    threading.Thread(target=self._wait, name="stepwell-turn", daemon=True).start()
                else:
                    return
            self._wanted = True
            got = self._state.wait_for(lambda: self._got, self._wait_s)
            self._wanted = self._got = False
            if not got:
                raise Retry(f"another process has held the database for {self._wait_s:g} s")

    def _wait(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        with self._state:
            self._pending = False
            if self._wanted:
                self._got = True
                self._state.notify()
            else:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def release(self) -> None:
        """Lets the next one in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Gives the lock up for good."""
        with self._state:
            if not self._pending:
                os.close(self._fd)

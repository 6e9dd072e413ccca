"""What keeps users' functions in a transaction short and free of I/O (source: KERNEL, mutations).

Three nets: Python's audit events refuse I/O, and for what older Pythons have no event for, a sleep and the start of a
thread, there are replacements (`waits`); a watchdog raises in code that takes too long; and a refusal that the function
catches fails it all the same. What waits in C, for a lock for example, no net can end: the watchdog says where it is.
"""

import ctypes
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any, TypeVar

from stepwell.engine.inside import INSIDE
from stepwell.functions import waits
from stepwell.kernel.calls import AppTables, Away
from stepwell.model.errors import StepwellError, Timeout

T = TypeVar("T")
log = logging.getLogger("stepwell.functions")

_OS = (
    "chmod chown exec fork forkpty kill killpg link mkdir posix_spawn putenv remove rename rmdir spawn symlink system "
    "truncate unsetenv utime"
)
_SOCKET = "__new__ bind connect getaddrinfo gethostbyaddr gethostbyname sendmsg sendto"
_OTHER = (
    "_thread.start_joinable_thread _thread.start_new_thread builtins.input pty.spawn shutil.copyfile shutil.move "
    "shutil.rmtree sqlite3.connect subprocess.Popen time.sleep urllib.Request"
)
EVENTS = frozenset(
    {"open", *(f"os.{one}" for one in _OS.split()), *(f"socket.{one}" for one in _SOCKET.split()), *_OTHER.split()}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
#: Modules that may open files on behalf of a function: a log file that is turned over, a module that is compiled.
_TRUSTED = ("logging", "importlib")
#: After this many times its limit, a function that cannot be interrupted is told of in the log.
STUCK = 5
#: The watchdog's thread rests when nobody has called for so long, in seconds.
REST_S = 5.0


class NotAllowed(StepwellError):
    """A mutation or query did what does not belong into a transaction. It was rolled back."""

    code, status = "not_allowed", 400
    default_hint = "Do it in a step or an action, and give the mutation what came out."


class _Overdue(BaseException):
    """Raised into a function by the watchdog."""


class Watched:
    """One call under way. `refused` is the first refusal; it stands, whatever the function made of it."""

    def __init__(self, name: str, deadline: float, outer: "Watched | None") -> None:
        self.name, self.deadline, self.outer = name, deadline, outer
        self.thread = threading.get_ident()
        self.root: Watched = self if outer is None else outer.root
        self.refused: StepwellError | None = None
        self.away: Away | None = None
        self.shields = 0
        self.overdue = self.told = False

    def refuse(self, error: StepwellError) -> StepwellError:
        """Notes a refusal, for the caller to raise."""
        self.refused = self.refused or error
        return error


class _Hook:
    """An audit hook can be neither removed nor found again, so the process keeps the one that it has."""

    def __init__(self) -> None:
        self.added = False
        self.inside: dict[int, Watched] = {}


_HOOK = _Hook()


def _on_event(event: str, args: tuple[Any, ...], hook: _Hook = _HOOK) -> None:
    """While an interpreter ends it still audits, when the names of a module are gone: the hook is one of its own."""
    if hook.inside and event in EVENTS and (watched := hook.inside.get(threading.get_ident())) is not None:
        if event == "open" and not _is_write(args):
            return
        if watched.root.shields == 0 and not _is_trusted(sys._getframe(1)):
            what = "write a file" if event == "open" else event.replace("_thread.", "threading.")
            raise watched.refuse(NotAllowed(f"{watched.name} may not do I/O or wait in a transaction: {what}"))


def _is_write(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return any(char in mode for char in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITES)


def _is_trusted(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") != __name__:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _TRUSTED:
            return True
        frame = frame.f_back
    return False


def _on_wait(what: str) -> None:
    watched = _HOOK.inside.get(threading.get_ident())
    if watched is not None and not watched.root.shields and not _is_trusted(sys._getframe(2)):
        raise watched.refuse(NotAllowed(f"{watched.name} may not do I/O or wait in a transaction: {what}"))


class Guard:
    """Runs functions under the three nets, on any thread, each within `limit_ms`."""

    def __init__(self, limit_ms: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._limit_s, self._clock = limit_ms / 1_000, clock
        self._watchdog = _Watchdog(self._limit_s, clock)
        if not _HOOK.added:
            _HOOK.added = True
            sys.addaudithook(_on_event)
        waits.kept().install(_on_wait)

    def close(self) -> None:
        """Ends the watchdog's thread."""
        self._watchdog.stop()

    def run(self, name: str, work: Callable[[Watched], T], tables: AppTables) -> T:
        """What `work` returns. Raises what it raises, its first refusal, or `Timeout`; `Away` before all else."""
        thread = threading.get_ident()
        outer = _HOOK.inside.get(thread)
        watched = Watched(name, outer.deadline if outer else self._clock() + self._limit_s, outer)
        token = INSIDE.set(name)
        try:
            value = self._inner(watched, work) if outer else self._outer(watched, work, tables)
        except BaseException as error:
            self._judge(watched)
            if isinstance(error, _Overdue) and outer is None:
                raise self._timeout(watched) from None
            raise
        finally:
            if outer is None:
                _HOOK.inside.pop(thread, None)
            else:
                _HOOK.inside[thread] = outer
            INSIDE.reset(token)
        self._judge(watched)
        return value

    def _outer(self, watched: Watched, work: Callable[[Watched], T], tables: AppTables) -> T:
        self._watchdog.watch(watched)
        tables.until(lambda: watched.deadline - self._clock())
        _HOOK.inside[watched.thread] = watched
        try:
            try:
                return work(watched)
            finally:
                self._watchdog.leave(watched)
        except BaseException:  # the watchdog may have raised while it was being left
            self._watchdog.leave(watched)
            raise
        finally:
            tables.until(None)

    def _inner(self, watched: Watched, work: Callable[[Watched], T]) -> T:
        """A call inside another one has that one's time; the code around it is the kernel's, its own is not."""
        root = watched.root
        shields, root.shields = root.shields, 0
        _HOOK.inside[watched.thread] = watched
        try:
            return work(watched)
        finally:
            root.shields = shields

    def _judge(self, watched: Watched) -> None:
        if watched.away is not None:
            raise watched.away
        if watched.outer is None and watched.overdue:
            raise self._timeout(watched)
        if watched.refused is not None:
            raise watched.refused

    def _timeout(self, watched: Watched) -> Timeout:
        limit_ms = round(self._limit_s * 1_000)
        return Timeout(
            f"{watched.name} took longer than {limit_ms:,} ms in a transaction and was rolled back",
            hint="Everybody waits for it: do less in one call, or raise STEPWELL_MUTATION_LIMIT_MS.",
            limit_ms=limit_ms,
        )

    @contextmanager
    def shield(self, watched: Watched) -> Iterator[None]:
        """Inside is code that must not be broken off: the kernel's, and SQLite's, which have bounds of their own."""
        self._watchdog.shield(watched.root)
        try:
            yield
        finally:
            watched.root.shields -= 1


class _Watchdog:
    """A thread that raises in functions that take too long. It rests while there are none."""

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._tick_s = min(max(limit_s / 4, 0.005), 0.25)
        self._lock = threading.Lock()
        self._calls: dict[int, Watched] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._resting = self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def watch(self, watched: Watched) -> None:
        self._calls[watched.thread] = watched
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="stepwell-watchdog", daemon=True)
            self._thread.start()
        elif self._resting:
            self._wake.set()

    def leave(self, watched: Watched) -> None:
        """From here on nothing is raised any more."""
        with self._lock:
            self._calls.pop(watched.thread, None)
        if watched.overdue:
            with suppress(_Overdue):
                _raise_here(watched.thread)

    def shield(self, root: Watched) -> None:
        """Nothing is raised until the shield is taken away. Raises now what was to be raised."""
        with self._lock:
            root.shields += 1
            overdue = root.overdue
        if overdue:
            root.shields -= 1
            _raise_here(root.thread)

    def _main(self) -> None:
        used = self._clock()
        while not self._stopped:
            now = self._clock()
            if self._calls:
                used = now
                self._look(now)
            if now - used > REST_S:
                self._resting = True
                if not self._calls:
                    self._wake.wait()
                self._resting = False
                used = self._clock()
            self._wake.clear()
            self._wake.wait(self._tick_s)

    def _look(self, now: float) -> None:
        with self._lock:
            for watched in list(self._calls.values()):
                if now > watched.deadline and not watched.shields:
                    watched.overdue = True
                    _raise_in(watched.thread)
        for watched in list(self._calls.values()):
            if now > watched.deadline + STUCK * self._limit_s and not watched.told:
                watched.told = True
                frame = sys._current_frames().get(watched.thread)
                where = "".join(traceback.format_stack(frame)) if frame else ""
                log.error("%s cannot be interrupted, and holds up every command:\n%s", watched.name, where)


def _raise_in(thread: int) -> None:
    """Raises in a thread at its next step of Python; what waited to be raised there is replaced."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Overdue))


def _raise_here(thread: int) -> None:
    """Raises `_Overdue` now, in this thread, so that none waits to be raised later.

    Taking one back instead would leave CPython 3.11 with a signal that it never clears.
    """
    _raise_in(thread)
    while True:
        pass

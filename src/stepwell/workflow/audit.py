"""Real I/O in a body, as Python's audit events show it, raises NondeterministicCall (source: spec workflow-loop 2).

Python offers no way to remove an audit hook, and each costs a little in the whole process: `STEPWELL_AUDIT=0` in the
environment, before the first worker starts, goes without. What can be caught otherwise is refused all the same.
"""

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from stepwell.workflow.seams import running
from stepwell.workflow.where import caller, is_foreign

_READING = frozenset({"open", "os.listdir", "os.scandir", "glob.glob", "glob.glob/2", "pathlib.Path.glob"})
_OS = (
    "chflags chmod chown exec fork forkpty fwalk getxattr kill killpg link listxattr lockf mkdir posix_spawn putenv "
    "remove removexattr rename rmdir setxattr spawn startfile symlink system truncate unsetenv utime walk"
)
_SOCKET = (
    "__new__ bind connect getaddrinfo gethostbyaddr gethostbyname gethostname getnameinfo getservbyname getservbyport "
    "sendmsg sendto sethostname"
)
_SHUTIL = "chown copyfile copymode copystat copytree make_archive move rmtree unpack_archive"
_OTHER = (
    "_thread.start_joinable_thread _thread.start_new_thread builtins.input fcntl.fcntl fcntl.flock fcntl.ioctl "
    "fcntl.lockf ftplib.connect http.client.connect imaplib.open mmap.__new__ poplib.connect pty.spawn "
    "resource.prlimit resource.setrlimit signal.pthread_kill smtplib.connect sqlite3.connect subprocess.Popen "
    "syslog.openlog syslog.syslog tempfile.mkdtemp tempfile.mkstemp time.sleep urllib.Request webbrowser.open"
)
EVENTS = (
    _READING
    | {f"os.{name}" for name in _OS.split()}
    | {f"socket.{name}" for name in _SOCKET.split()}
    | {f"shutil.{name}" for name in _SHUTIL.split()}
    | set(_OTHER.split())
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_NOTHING: frozenset[str] = frozenset()


class _Hook:
    """An audit hook can be neither removed nor found again, so the process keeps the one that it has."""

    def __init__(self) -> None:
        self.added = False
        self.events = _NOTHING
        self.loop_type: type[Any] | None = None


_HOOK = _Hook()


def install(loop_type: type[Any]) -> bool:
    """Refuses real I/O on loops of this type; twice does nothing. False when the environment says to go without."""
    if os.environ.get("STEPWELL_AUDIT", "1") == "0":
        return False
    _HOOK.loop_type, _HOOK.events = loop_type, EVENTS
    if not _HOOK.added:
        sys.addaudithook(_on_event)
        _HOOK.added = True
    return True


def disarm() -> None:
    """The hook stays, and refuses nothing."""
    _HOOK.events = _NOTHING


def _on_event(event: str, args: tuple[Any, ...], hook: _Hook = _HOOK, running: Callable[[], Any] = running) -> None:
    """While an interpreter ends it still audits, when the names of a module are gone: so it has what it needs."""
    if event in hook.events and type(running()) is hook.loop_type:
        _refuse(event, args, sys._getframe(1))


def _refuse(event: str, args: tuple[Any, ...], frame: FrameType) -> None:
    if event in _READING and not _changes(event, args) and (caller(frame) != "user" or _is_zone(args[0])):
        return  # a library reads its own data
    if not is_foreign(frame):
        raise running().host.refuse(_named(event, args))


def _changes(event: str, args: tuple[Any, ...]) -> bool:
    """True for opening a file to write to it."""
    if event != "open":
        return False
    mode, flags = args[1], args[2]
    return bool(flags & _WRITES) if mode is None else any(letter in str(mode) for letter in "wax+")


def _is_zone(path: Any) -> bool:
    """True for the data of a time zone, which C code reads."""
    zones = sys.modules.get("zoneinfo")
    return zones is not None and str(path).startswith(tuple(f"{place}{os.sep}" for place in zones.TZPATH))


def _named(event: str, args: tuple[Any, ...]) -> str:
    """What was tried: `open('x', 'w')` for files, the name of the event for the rest."""
    if event == "open":
        mode = f", {args[1]!r}" if isinstance(args[1], str) else ""
        return f"open({str(args[0])[:200]!r}{mode})"
    return {"_thread.start_new_thread": "starting a thread", "_thread.start_joinable_thread": "starting a thread"}.get(
        event, event if event != "time.sleep" else "time.sleep()"
    )

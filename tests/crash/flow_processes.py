"""The processes of a flow storm: those that carry its mark or that of an attempt, and the guards of its workers."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stepwell.flows.executors.guard import MARK as STEP_MARK
from stepwell.flows.executors.guard import PROCESS

MARK = "STORM_MARK"
__all__ = ["MARK", "STEP_MARK", "Guarded", "guards_of", "marked"]


class Guarded(NamedTuple):
    """A guard's process. It has an empty environment, so it is known by its pid and the moment of its start."""

    pid: int
    started: str

    def lives(self) -> bool:
        with suppress(OSError):
            stat = _stat(self.pid)
            return stat[STARTED] == self.started and stat[STATE] != "Z"
        return False


#: Fields of /proc/PID/stat after the name.
STATE, PARENT, STARTED = 0, 1, 19


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def guards_of(worker: int) -> set[Guarded]:
    """The guard of a worker that lives; nobody else tells whose a guard was once its worker is dead."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            pid, words = int(entry.parent.name), entry.read_bytes().split(b"\0")
            if str(PROCESS).encode() in words and int((stat := _stat(pid))[PARENT]) == worker:
                found.add(Guarded(pid, stat[STARTED]))
    return found


def marked(name: str, marks: set[str]) -> list[tuple[int, dict[str, str]]]:
    """The living processes that have one of these in a variable, with their environments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            names = dict(one.partition("=")[::2] for one in entry.read_bytes().decode("latin-1").split("\0"))
            if names.get(name) in marks:
                found.append((int(entry.parent.name), names))
    return found

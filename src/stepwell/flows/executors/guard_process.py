"""Kills the steps of a worker that died or let a lease run out; a process of its own, started by `guard`.

stdin has one line for each change: `MARK GROUP END`, where the group is 0 until it is known and the end is a time of
the steady clock, or `MARK` alone when the attempt is over. The end of stdin means that the worker is dead: the kernel
closes the pipe however that came about. Usage: python -I -S guard_process.py NAME_OF_THE_VARIABLE
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Set as AbstractSet
from pathlib import Path

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: Marked processes are looked for again after these, since one may have been starting another, in seconds.
PAUSES_S = (0.0, 0.2, 0.5)
#: The longest look away: what we sleep with does not go on while the machine sleeps, and leases do.
LOOK_S = 1.0

Watched = dict[bytes, tuple[int, float]]


def main(variable: bytes) -> None:
    """Guard until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: Watched = {}
    rest = b""
    while True:
        if select.select([0], [], [], LOOK_S if watched else None)[0]:
            data = os.read(0, 65_536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                take(line, watched)
        late = [mark for mark, (_, end) in watched.items() if time.clock_gettime(_STEADY) >= end]
        kill(variable, {mark: watched.pop(mark)[0] for mark in late})
    kill(variable, {mark: group for mark, (group, _) in watched.items()})


def take(line: bytes, watched: Watched) -> None:
    """One change."""
    mark, *rest = line.split()
    if rest:
        watched[mark] = int(rest[0]), float(rest[1])
    else:
        watched.pop(mark, None)


def kill(variable: bytes, groups: dict[bytes, int]) -> None:
    """Kill process groups, and what has their marks in its environment (Linux): that reaches who left the group."""
    for group in filter(None, groups.values()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for pause_s in PAUSES_S if groups else ():
        time.sleep(pause_s)
        kill_marked({variable + b"=" + mark for mark in groups})


def kill_marked(marks: AbstractSet[bytes]) -> None:
    """Kill whatever has one of these in its environment: all at once, so that nobody sees the death of another."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if not marks.isdisjoint(environ.read_bytes().split(b"\0")):
                found.append(int(environ.parent.name))
    for pid in sorted(found):  # parents first, as a rule
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1].encode())

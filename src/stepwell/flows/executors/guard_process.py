"""Kills the steps of a worker that died or let a lease run out; a process of its own, started by `guard`.

stdin has one line for each change: `MARK GROUP BEGIN END`, where the group is 0 until it is known, and the attempt may
begin and go on until two times of the steady clock. They are `over` when the attempt is, and its group was killed: then
what still has the mark is. The end of stdin means that the worker is dead: the kernel closes the pipe however that came
about. What begins with WAYS and ends with the mark is a link: by it the attempt's process reaches its folder, so it
goes when it is too late to begin.
Usage: python -I -S guard_process.py NAME_OF_THE_VARIABLE WAYS
"""

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: When marked processes are looked for, in seconds: again, since one may have been starting another.
LOOKS_S = (0.0, 0.2, 0.7)
#: Between two looks at least, in seconds, however many attempts end meanwhile: one look is for all of them.
GAP_S = 0.1
#: The longest rest: what we sleep with does not go on while the machine sleeps, and leases do.
REST_S = 1.0

#: A pid, and the lap of the pids in which it was given out.
First = tuple[int, int]
ANY: First = (0, 0)


def main(variable: bytes, ways: bytes) -> None:
    """Guard until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    attempts = Attempts(variable, ways)
    rest = b""
    while True:
        if select.select([0], [], [], attempts.rest_s())[0]:
            data = os.read(0, 65_536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                attempts.take(line)
        attempts.look()
    attempts.last()


def steady_s() -> float:
    """The clock of the leases."""
    return time.clock_gettime(_STEADY)


class Attempt:
    """What is known of one. `begin` and `end` say until when it may; infinite when that has been dealt with."""

    def __init__(self) -> None:
        self.group, self.begin, self.end, self.over = 0, math.inf, math.inf, False
        self.first: First = (0, 0)
        self.looks: list[float] = []  # when to look for its mark


class Attempts:
    """Those whose leases are watched, and those that are over, whose marks are looked for once more."""

    def __init__(self, variable: bytes, ways: bytes, clock_s: Callable[[], float] = steady_s) -> None:
        self._variable, self._ways, self._pids, self._clock_s = variable, ways, Pids(), clock_s
        self._known: dict[bytes, Attempt] = {}
        self._looked_s = -math.inf

    def take(self, line: bytes) -> None:
        """One change."""
        mark, group, begin, end = line.split()
        is_new, one = mark not in self._known, self._known.setdefault(mark, Attempt())
        if int(group) and not one.group:
            one.group = int(group)
            one.first = ANY if is_new else self._pids.begun(one.group)  # new: told by a guard's successor
        if end == b"over":
            one.over, one.begin, one.end = True, math.inf, math.inf
            one.looks = _looks(self._clock_s())
        else:
            one.begin, one.end = float(begin), float(end)

    def rest_s(self) -> float | None:
        """How long there is nothing to do but to listen; None: for ever."""
        if not self._known:
            return None
        looks = [max(one.looks[0], self._looked_s + GAP_S) for one in self._known.values() if one.looks]
        next_s = min((*looks, *(min(one.begin, one.end) for one in self._known.values())))
        return min(REST_S, max(0.0, next_s - self._clock_s()))

    def look(self) -> None:
        """Kill what is due."""
        now_s = self._clock_s()
        self._pids.look()
        for mark, one in self._known.items():
            if now_s >= one.begin:
                self._shut(mark, one)
            if now_s >= one.end:
                _kill_group(one, now_s)
        due = {mark: one for mark, one in self._known.items() if one.looks and now_s >= one.looks[0]}
        if not due or now_s < self._looked_s + GAP_S:
            return
        self._kill_marked(due)
        self._looked_s = self._clock_s()
        for mark, one in due.items():
            del one.looks[0]
            if one.over and not one.looks:
                del self._known[mark]

    def last(self) -> None:
        """Kill all that is left. For those that were over before, one look will do, unless it finds somebody."""
        alive = {mark: one for mark, one in self._known.items() if not one.over}
        for mark, one in alive.items():
            self._shut(mark, one)
            _kill_group(one, self._clock_s())
        for look_s in _looks(self._clock_s()) if self._known else ():
            time.sleep(max(0.0, look_s - self._clock_s()))
            self._pids.look()
            if not self._kill_marked(self._known) and not alive:
                return

    def _shut(self, mark: bytes, one: Attempt) -> None:
        """Nothing of it begins any more."""
        with contextlib.suppress(OSError):
            os.unlink(self._ways + mark)  # noqa: PTH108 - no need to load pathlib for this
        one.begin = math.inf

    def _kill_marked(self, attempts: dict[bytes, Attempt]) -> bool:
        first = min(self._pids.lowest(one.first) for one in attempts.values())
        return kill_marked({self._variable + b"=" + mark for mark in attempts}, first)


def _looks(now_s: float) -> list[float]:
    return [now_s + after_s for after_s in LOOKS_S]


def _kill_group(one: Attempt, now_s: float) -> None:
    if one.group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.group, signal.SIGKILL)
    one.end, one.looks = math.inf, _looks(now_s)


class Pids:
    """Which pids may be of processes that began after another, so that a look need not be at all (Linux).

    Pids go up and begin again at the top, which is noticed by the pid that was given out last going down. It is looked
    at each `REST_S` while there are attempts; who gives out all pids in that time escapes the look, not the group.
    """

    def __init__(self, source: str = "/proc/loadavg") -> None:
        self._lap = self._last = 0
        self._source: int | None = None
        with contextlib.suppress(OSError):
            self._source = os.open(source, os.O_RDONLY | os.O_CLOEXEC)

    def look(self) -> None:
        """Notice a new lap; where nobody tells, each look is one, and all pids are looked at."""
        last = 0 if self._source is None else int(os.pread(self._source, 256, 0).split()[-1])
        self._lap += last < self._last or not last
        self._last = last

    def begun(self, pid: int) -> First:
        """A process that has begun just now."""
        self.look()
        return (pid, self._lap) if pid <= self._last else ANY

    def lowest(self, first: First) -> int:
        """From which pid on to look for what that one has started."""
        pid, lap = first
        return pid if lap == self._lap else 0


def kill_marked(marks: AbstractSet[bytes], first: int = 0) -> bool:
    """Kill whatever has one of these in its environment: all at once, so that nobody sees the death of another.

    Looks at pids from `first` on; the kernel shows us the environment of those only that we may kill. Says whether
    there was anybody.
    """
    found = []
    for pid in _pids(first):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:  # noqa: PTH123
            if not marks.isdisjoint(environ.read().split(b"\0")):
                found.append(pid)
    for pid in found:  # parents first, as a rule
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _pids(first: int) -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - a Path for each process costs more than the look at it
    except OSError:
        return []
    return sorted(pid for pid in map(int, filter(str.isdigit, names)) if pid >= first)


if __name__ == "__main__":
    main(*map(os.fsencode, sys.argv[1:]))

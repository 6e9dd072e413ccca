"""What an engine changes in its Python process while it is open: how threads take turns, and when garbage is sought.

By default Python lets a thread compute for 5 ms before another gets its turn. A lane commits in far less, with many
short calls of the database, after each of which it would wait that long for an event loop that is busy.

And it looks for cycles of garbage after each 700 new objects (2,000 in later versions), in all that are young. Hundreds
of runs that go on side by side have more than that under way: the collector would walk through them at each step of
theirs, to find nothing.
"""

import gc
import sys
import threading
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")
#: Python's own. Others are somebody's wish, and stay.
SWITCH_S = 0.005
THRESHOLDS = ((700, 10, 10), (2_000, 10, 10), (2_000, 10, 0))


class Borrowed(Generic[T]):
    """Counts the open engines of a process: the first one changes the setting, the last one puts it back."""

    def __init__(self, get: Callable[[], T], put: Callable[[T], None], defaults: Collection[T]) -> None:
        self._get, self._put, self._defaults = get, put, defaults
        self._lock = threading.Lock()
        self._open = 0
        self._before: T | None = None
        self._now: T | None = None

    def enter(self, wanted: T | None) -> None:
        """An engine opens; None leaves the setting alone."""
        with self._lock:
            self._open += 1
            before = self._get()
            if wanted is not None and self._now is None and before in self._defaults:
                self._put(wanted)
                self._before, self._now = before, self._get()

    def leave(self) -> None:
        """An engine has closed."""
        with self._lock:
            self._open -= 1
            if self._open == 0 and self._before is not None:
                if self._get() == self._now:  # else somebody has changed it since
                    self._put(self._before)
                self._before = self._now = None


def switching() -> Borrowed[float]:
    """The interval in which threads take turns, in seconds."""
    return Borrowed(sys.getswitchinterval, sys.setswitchinterval, (SWITCH_S,))


def collecting() -> Borrowed[tuple[int, int, int]]:
    """How many new objects there are when the collector begins, and how often it looks at older ones."""
    return Borrowed(gc.get_threshold, lambda wanted: gc.set_threshold(*wanted), THRESHOLDS)


class Process:
    """Both, for the engines of one process."""

    def __init__(self) -> None:
        self.switching, self.collecting = switching(), collecting()

    def enter(self, switch_us: int, collect_objects: int) -> None:
        """An engine opens; 0 leaves a setting alone."""
        self.switching.enter(switch_us / 1e6 if switch_us else None)
        self.collecting.enter((collect_objects, 10, gc.get_threshold()[2]) if collect_objects else None)

    def leave(self) -> None:
        """An engine has closed."""
        self.switching.leave()
        self.collecting.leave()


#: There is one interval and one collector for the whole process, so their keeper is one, too.
PROCESS = Process()

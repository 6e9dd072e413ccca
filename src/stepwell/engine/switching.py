"""How soon a thread that computes lets another one run, while an engine is open.

By default Python lets a thread compute for 5 ms before another gets its turn. A lane commits in far less, with many
short calls of the database, after each of which it would wait that long for an event loop that is busy.
"""

import sys
import threading

#: Python's own interval. Another one is somebody's wish, and stays.
DEFAULT_S = 0.005


class Switching:
    """Counts the open engines of a process: the first one shortens the interval, the last one puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._set_s: float | None = None

    def enter(self, interval_us: int) -> None:
        """An engine opens; 0 leaves the interval alone."""
        with self._lock:
            self._open += 1
            if interval_us and self._set_s is None and sys.getswitchinterval() == DEFAULT_S:
                sys.setswitchinterval(interval_us / 1e6)
                self._set_s = sys.getswitchinterval()

    def leave(self) -> None:
        """An engine has closed."""
        with self._lock:
            self._open -= 1
            if self._open == 0 and self._set_s is not None:
                if sys.getswitchinterval() == self._set_s:  # else somebody has changed it since
                    sys.setswitchinterval(DEFAULT_S)
                self._set_s = None


#: The interval is one for the whole process, so its keeper is, too.
SWITCHING = Switching()

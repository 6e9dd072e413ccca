"""The clocks: what the engine and its workers take when nobody gives them another."""

import time
from collections.abc import Callable


def wall_ms() -> int:
    """Milliseconds since the epoch: the time that is written down."""
    return time.time_ns() // 1_000_000


def steady_s() -> float:
    """Seconds that only go on, also while the machine sleeps: the time that leases and pauses are measured with."""
    return _gettime(_STEADY)


class StoreClock:
    """The time of the store's server, which all who write there share; this machine's until the store has told its own.

    Between two tellings it goes on as this machine's clock does. From any thread.
    """

    def __init__(self, local_ms: Callable[[], int] = wall_ms) -> None:
        self._local_ms = local_ms
        self._ahead_ms = 0

    def told(self, now: int) -> None:
        """The store's clock says `now`, ms since the epoch."""
        self._ahead_ms = now - self._local_ms()

    def __call__(self) -> int:
        return self._local_ms() + self._ahead_ms


_gettime = time.clock_gettime  # the real one, also where bodies of workflows get another
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

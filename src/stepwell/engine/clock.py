"""The clocks: what the engine and its workers take when nobody gives them another."""

import time


def wall_ms() -> int:
    """Milliseconds since the epoch: the time that is written down."""
    return time.time_ns() // 1_000_000


def steady_s() -> float:
    """Seconds that only go on, also while the machine sleeps: the time that leases and pauses are measured with."""
    return _gettime(_STEADY)


_gettime = time.clock_gettime  # the real one, also where bodies of workflows get another
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

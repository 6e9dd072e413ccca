"""How a process that goes on hears that it is to end: SIGTERM and SIGINT, as often as they come."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


def when_told_to_end(told: Callable[[], None]) -> None:
    """Calls `told` on the running loop at each of the signals, from now on.

    The handlers outlive the loop. asyncio's own go when it closes, and one more signal, as of an operator who is in a
    hurry, would then kill the process while it closes its store.
    """
    loop = asyncio.get_running_loop()

    def heard(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end has come already
            loop.call_soon_threadsafe(told)

    for number in ENDING:
        signal.signal(number, heard)

"""Tells of a body that computes for so long that the worker's other runs wait (source: spec workflow-loop 6).

A thread looks once in a while, and at once when a pump has had its time: so an endless loop is told of, with the line
where it is just now. It sleeps without waking up while nothing is pumped.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable

from stepwell.workflow.seams import original_of, outside
from stepwell.workflow.where import user_line

log = logging.getLogger("stepwell.workflow")
#: A pump may take this long, in milliseconds.
PUMP_LIMIT_MS = 100
#: There is at most one report in this time, in milliseconds.
REPORT_EVERY_MS = 1_000
_NOWHERE = "the line is not known, as no other thread could run meanwhile"


#: The name of a workflow, the id of its run, and when the pump began.
_Pump = tuple[str, str, float]


class Watchdog:
    """For the pumps of one thread. `pump_started` and `pump_ended` are called around each, in that thread."""

    def __init__(self, *, limit_ms: int = PUMP_LIMIT_MS, report_every_ms: int = REPORT_EVERY_MS) -> None:
        self._limit_s, self._every_s = limit_ms / 1_000, report_every_ms / 1_000
        self._clock: Callable[[], float] = original_of(time.monotonic) or time.monotonic
        self._pump: _Pump | None = None  # the one that is under way
        self._last: _Pump | None = None
        self._told: _Pump | None = None
        self._told_at, self._untold = float("-inf"), 0
        self._bell = threading.Event()
        self._asleep = True  # whoever begins a pump wakes the thread, or starts it
        self._closed = False
        self._pumping = 0
        self._thread: threading.Thread | None = None

    @property
    def asleep(self) -> bool:
        """True while the thread waits for the next pump, however long that takes."""
        return self._asleep

    def pump_started(self, workflow: str, run_id: str) -> None:
        """A pump of this run begins."""
        self._pump = self._last = (workflow, run_id, self._clock())
        if self._asleep:
            self._wake()

    def pump_ended(self) -> None:
        """The pump is over. A slow one that the thread could not look at is reported now."""
        pump, self._pump = self._pump, None
        if pump is not None and self._clock() - pump[2] > self._limit_s and self._told is not pump:
            self._report(pump, _NOWHERE)

    def close(self) -> None:
        """Ends the thread. Twice does nothing; later pumps are not watched."""
        self._closed = True
        self._bell.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _wake(self) -> None:
        self._asleep = False
        self._pumping = threading.get_ident()
        if self._thread is None and not self._closed:
            with outside():
                self._thread = threading.Thread(target=self._watch, name="stepwell-watchdog", daemon=True)
                self._thread.start()
        self._bell.set()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        while not self._closed:
            pump = self._pump
            if pump is None:
                self._doze()
            else:
                self._follow(pump)

    def _doze(self) -> None:
        """Looks again after the time that a pump may take; sleeps when there was none meanwhile."""
        last = self._last
        self._wait(self._limit_s)
        if self._last is not last or self._closed:
            return
        self._asleep = True
        if self._last is last:  # whoever begins from here on sees that it sleeps
            self._wait(None)
        self._asleep = False

    def _wait(self, seconds: float | None) -> None:
        if not self._closed:
            self._bell.wait(seconds)
        if not self._closed:
            self._bell.clear()

    def _follow(self, pump: _Pump) -> None:
        left = pump[2] + self._limit_s - self._clock()
        if left > 0:
            self._wait(left)
            return
        line = user_line(sys._current_frames().get(self._pumping))
        if self._pump is pump:  # so the line is one of this pump
            self._report(pump, line)
        self._wait(self._limit_s)

    def _report(self, pump: _Pump, line: str) -> None:
        now = self._clock()
        known, self._told = self._told is pump, pump
        if now - self._told_at < self._every_s:
            self._untold += not known
            return
        more = f"; {self._untold} more slow pumps before it were not told" if self._untold else ""
        self._told_at, self._untold = now, 0
        with outside():
            log.warning(
                "workflow %s, run %s: its body has computed for %d ms without awaiting anything, and other runs "
                "wait: %s. Put long work into a step: `await ctx.step(...)`%s",
                pump[0], pump[1], (now - pump[2]) * 1_000, line, more,
            )  # fmt: skip

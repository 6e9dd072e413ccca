"""Runs that ended a moment ago: who waits for the end of one, or asks just after it, reads nothing."""

import threading
from collections.abc import Callable, Mapping

from stepwell.engine.clock import steady_s
from stepwell.model.rows import Run

MOST = 5_000
KEPT_S = 5.0
#: A row with more payload than this is not kept: whoever wants it reads it.
KEPT_CHARS = 2_048


class Ends:
    """A bounded memory. The lane's thread tells it of each commit before anybody is answered.

    It knows since when it is complete, so that silence means something.
    """

    def __init__(self, *, clock: Callable[[], float] = steady_s, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._clock, self._most, self._kept_s = clock, most, kept_s
        self._lock = threading.Lock()
        self._rows: dict[int, tuple[float, Run | None]] = {}  # oldest first
        self._complete_after = clock()

    def get(self, number: int) -> Run | None:
        """The row of a run that has ended; None says nothing."""
        found = self._rows.get(number)
        return None if found is None else found[1]

    def silent_on(self, number: int, since: float) -> bool:
        """Whether no commit of this process has ended the run after `since`, in seconds of the steady clock."""
        with self._lock:
            return since > self._complete_after and number not in self._rows

    def saw(self, touched: frozenset[int], ended: Mapping[int, Run | None]) -> None:
        """A commit touched these runs, and these of them have ended with it."""
        rows = self._rows
        if not rows and not ended:
            return
        with self._lock:
            for number in touched & rows.keys():
                del rows[number]
            now = self._clock()
            rows.update((number, (now, run)) for number, run in ended.items())
            self._drop(now)

    def forget(self) -> None:
        """Others have committed: what was true may not be any more."""
        with self._lock:
            self._rows.clear()
            self._complete_after = self._clock()

    def _drop(self, now: float) -> None:
        while self._rows:
            number = next(iter(self._rows))
            at = self._rows[number][0]
            if len(self._rows) <= self._most and at >= now - self._kept_s:
                return
            del self._rows[number]
            self._complete_after = max(self._complete_after, at)


def kept(run: Run) -> Run | None:
    """The row if it may be handed on as it is: all its payload at hand, and not much of it."""
    texts = [text for text in (run.input, run.result, run.error) if text is not None]
    if sum(map(len, texts)) > KEPT_CHARS or any(text.startswith("@") for text in texts):
        return None
    return run

"""Runs that ended a moment ago: who waits for the end of one, or asks just after it, reads nothing."""

import threading
from collections.abc import Callable, Mapping

from msgspec import Struct

from stepwell.engine.clock import steady_s
from stepwell.model.rows import Run

MOST = 5_000
KEPT_S = 5.0
#: A row with more payload than this is not kept: whoever wants it reads it.
KEPT_CHARS = 2_048


class _Kept(Struct, frozen=True):
    """When it was seen, which generation of the run, and its row; None says nothing but that it was seen."""

    at: float
    generation: int
    run: Run | None

    def unknown(self) -> "_Kept":
        return _Kept(self.at, self.generation, None)


class Ends:
    """A bounded memory. The thread of a lane tells it of each commit before anybody is answered.

    It knows since when it is complete, so that silence means something. Commits of several lanes may be told in
    another order than they happened in: a restart counts before the end that it follows, too.
    """

    def __init__(self, *, clock: Callable[[], float] = steady_s, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._clock, self._most, self._kept_s = clock, most, kept_s
        self._lock = threading.Lock()
        self._rows: dict[int, _Kept] = {}  # oldest first
        self._complete_after = clock()

    def get(self, number: int) -> Run | None:
        """The row of a run that has ended; None says nothing."""
        found = self._rows.get(number)
        return None if found is None else found.run

    def silent_on(self, number: int, since: float) -> bool:
        """Whether no commit of this process has ended the run after `since`, in seconds of the steady clock."""
        with self._lock:
            return since > self._complete_after and number not in self._rows

    def saw(
        self, touched: frozenset[int], ended: Mapping[int, Run | None], reopened: Mapping[int, int] | None = None
    ) -> None:
        """A commit touched these runs; these have ended with it, and these were restarted, as that generation."""
        rows = self._rows
        if not rows and not ended and not reopened:
            return
        with self._lock:
            now = self._clock()
            for number in touched & rows.keys():  # what is known of it may not be so any more, but that it had ended is
                rows[number] = rows[number].unknown()
            for number, generation in (reopened or {}).items():
                rows[number] = _Kept(now, generation, None)
            for number, run in ended.items():
                self._keep(number, run, now)
            self._drop(now)

    def _keep(self, number: int, run: Run | None, now: float) -> None:
        before = self._rows.pop(number, None)
        if before is not None and run is not None and before.generation > run.generation:
            self._rows[number] = before
        else:
            self._rows[number] = _Kept(now, 0 if run is None else run.generation, run)

    def forget(self) -> None:
        """Others have committed: what was true may not be any more."""
        with self._lock:
            self._rows.clear()
            self._complete_after = self._clock()

    def _drop(self, now: float) -> None:
        while self._rows:
            number = next(iter(self._rows))
            at = self._rows[number].at
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

"""A lane: the one place where commands commit. Takes a batch, loads, decides, flushes, commits, answers.

With one caller a batch is one command; with a thousand it is one fsync. There is no delay to fill a batch: while one
commits, the next gathers by itself.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from stepwell.engine import callbacks
from stepwell.engine.answers import Answer, Hint, Item, give
from stepwell.engine.away import ASKED, pause_s
from stepwell.engine.backlog import Backlog, Passage
from stepwell.engine.clock import steady_s
from stepwell.engine.committed import Committed, summary
from stepwell.kernel.calls import Away, Busy, Postponed
from stepwell.kernel.decide import decide_all, refusal
from stepwell.kernel.needs import Names, named, need_of
from stepwell.kernel.unit import Mutations, Unit
from stepwell.model import commands as c
from stepwell.model.errors import Internal, Invalid, StepwellError, Unavailable
from stepwell.model.ids import unit_interval
from stepwell.model.settings import Settings
from stepwell.store.load import ahead, load
from stepwell.store.port import Broken, Refused, Retry, Session, Unknowable

log = logging.getLogger("stepwell.lane")

RETRIES = 5
#: How long a lane lets those be whose runs all its commands want: longer each time.
BUSY_S, LONGEST_BUSY_S = 0.001, 0.01
#: How many such times, some ten seconds, a lane that closes bears it.
CLOSING_WAITS = 1_000
#: A clock that goes back by less than this is slewed; by more, it was put back.
CLOCK_PUT_BACK_MS = 1_000


#: A batch's order: heartbeats before anything that could end their leases, and what deletes after all who name it.
_LAST = c.Sweep
_ORDER: dict[type[c.Command], int] = {c.Sync: 0, _LAST: 2, c.Prune: 3}


class Timings(Struct):
    """What a lane did since it began. Seconds, and the longest single batch and wait for the store's lock."""

    batches: int = 0
    commands: int = 0
    begin: float = 0.0
    load: float = 0.0
    decide: float = 0.0
    flush: float = 0.0
    commit: float = 0.0
    longest_batch: float = 0.0
    longest_begin: float = 0.0


def no_fault(point: str) -> None:
    """Tests put their faults here: begun, decided, flushed, committed, answering."""


class Lane:
    """Runs on a thread of its own. `submit` may be called from any thread and any event loop.

    `limited`: pools with limits that this lane and its fellows have met. `passes_to`: the lane that decides what calls
    mutations, None: this one.
    """

    def __init__(
        self,
        session: Session,
        *,
        settings: Settings,
        clock_ms: Callable[[], int],
        on_commit: Callable[[Committed], Hint | None],
        on_gap: Callable[[], None] = lambda: None,
        on_time: Callable[[int], None] = lambda now: None,
        mutations: Mutations | None = None,
        fault: Callable[[str], None] = no_fault,
        monotonic: Callable[[], float] = steady_s,
        name: str = "lane",
        limited: set[tuple[str, str]] | None = None,
        passes_to: "Lane | None" = None,
    ) -> None:
        self.name, self.timings = name, Timings()
        self.stopped: str | None = None  # for good
        self.away: str | None = None  # until the store is back
        self.commits = 0
        self._session, self._settings = session, settings
        self._clock_ms, self._monotonic, self._on_commit = clock_ms, monotonic, on_commit
        self._on_gap, self._on_time, self._mutations, self._fault = on_gap, on_time, mutations, fault
        self._queue: deque[Item] = deque()
        self._wake = threading.Event()
        self._limited = set[tuple[str, str]]() if limited is None else limited
        self.passage = Passage(self.submit)
        self._passes_on = passes_to is not None
        self._backlog = Backlog(None if passes_to is None else passes_to.passage)
        self._hints: list[Hint] = []  # of the batch under way
        self._idle = self._closing = False
        self._waits = 0  # batches in a row that were all busy
        self._now = 0
        self._alive_at = monotonic()
        self._time()  # so that the store's is known before the first batch
        self._no_sweep_until = 0.0
        self._thread = threading.Thread(target=self._main, name=f"stepwell-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Decides what is in the queue, then ends. Blocks until the thread has ended."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._turn_away("the engine is closed")
        self._session.close()

    def _turn_away(self, why: str, hint: str = "") -> None:
        """Answers those who wait in vain. Two threads may do this: who takes an item off the queue answers it."""
        for queue in (self._backlog, self._queue):
            with contextlib.suppress(IndexError):
                while True:
                    give([(queue.pop(), Unavailable(why, hint=hint or STOPPED_HINT))])

    @property
    def trouble(self) -> str | None:
        """Why nothing can be committed now; None when all is well."""
        return self.stopped or self.away

    @property
    def depth(self) -> int:
        """Commands that wait."""
        return len(self._queue) + len(self._backlog)

    def submit(self, command: c.Command, answer: Answer, loop: asyncio.AbstractEventLoop | None) -> None:
        """Queues a command; past the bound of the queue, and when the lane has stopped, `Unavailable` at once."""
        if type(command) not in (c.Sync, c.Sweep) and self.depth >= self._settings.queue_commands:
            raise Unavailable(
                f"{self.depth:,} commands wait already",
                hint="The server has more work than it can commit. Try again after a moment, with back-off.",
            )
        if self.stopped is not None or self._closing:
            raise Unavailable(self.stopped or "the engine is closed", hint=STOPPED_HINT)
        self._queue.append((command, answer, loop))
        if self._idle:
            self._idle = False
            self._wake.set()
        if self._closing and not self._thread.is_alive():
            self._turn_away("the engine is closed")

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        while True:
            if self.away is not None:
                self._until_back()
            if not self._queue and not self._backlog:
                if self._closing:
                    return
                self._wait()
                continue
            if self._closing and self._waits > CLOSING_WAITS:
                return  # who waits for runs that somebody else has is told so
            items = self._backlog.take(self._queue, self._settings.batch_commands)
            if not items:
                continue  # all of it went to another lane
            size = len(items)
            started = self._monotonic()
            self._notice_pause(started)
            try:
                replies = self._run(self._in_order(items))
            except BaseException as surprise:
                log.exception("a batch of %d commands raised", size)
                self._back()
                replies = [Internal(f"{type(surprise).__name__}: {surprise}") for _ in items]
            self._timed(size, self._monotonic() - started)
            self._fault("answering")
            self._tell(items, replies)
            self._ease(replies)

    def _tell(self, items: list[Item], replies: list[Any]) -> None:
        """Answers all but what was postponed."""
        pairs = self._backlog.settle(list(zip(items, replies, strict=True)))
        hints, self._hints = self._hints, []
        give(pairs, hints)

    def _ease(self, replies: list[Any]) -> None:
        """Where there was nothing but what others have under their hands: a moment for them."""
        if all(isinstance(reply, Busy) for reply in replies):
            self._waits += 1
            pause_s = min(BUSY_S * self._waits, LONGEST_BUSY_S)
            if self._closing:
                time.sleep(pause_s)
            else:
                self._rest(pause_s)
        else:
            self._waits = 0

    def _rest(self, longest_s: float) -> None:
        self._wake.clear()
        self._idle = True
        if not self._queue and not self._closing:
            self._wake.wait(longest_s)
        self._idle = False

    def _wait(self) -> None:
        self._rest(1.0)
        self._notice_pause(self._monotonic(), slack=1.0)

    def _notice_pause(self, now: float, *, slack: float = 0.0) -> None:
        """After a pause (a long batch, a stopped process) the sweep waits as long, but not longer than a lease."""
        gap = now - self._alive_at - slack
        self._alive_at = now
        if gap > self._settings.lease_ms / 4_000:
            log.warning("the lane stood still for %.1f s; expired leases are swept later", gap)
            self._no_sweep_until = now + min(gap, self._settings.lease_ms / 1_000)

    def _timed(self, size: int, seconds: float) -> None:
        timings = self.timings
        timings.batches += 1
        timings.commands += size
        timings.longest_batch = max(timings.longest_batch, seconds)

    def _in_order(self, items: list[Item]) -> list[c.Command]:
        if any(type(item[0]) in _ORDER for item in items):
            items.sort(key=lambda item: _ORDER.get(type(item[0]), 1))
        return [item[0] for item in items]

    # ── a batch ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, batch: Sequence[c.Command], behind: Names = frozenset()) -> list[Any]:
        """The replies of a batch, whatever happens on the way; what names a run of those `behind` is postponed."""
        why = ""
        for attempt in range(RETRIES + 1):
            replies: list[Any] = []
            unit = None
            try:
                unit = self._decided(batch, replies, behind)
                if unit is not None:
                    self._commit()
            except Retry as busy:
                why = str(busy)
                self._back()
                time.sleep(0.01 * (attempt + 1) * (0.5 + unit_interval(attempt, self._now)))
            except (Refused, StepwellError, TypeError, KeyError, ValueError, AttributeError) as refused:
                self._back()
                if len(batch) > 1:
                    return self._in_halves(batch, behind)
                return [_refusal(refused, batch[0])]
            except Unknowable as lost:
                why = f"the answer to a commit was lost: {lost}"
                happened = self._happened(why)
                if happened:
                    self._publish(unit)
                    return replies
                if happened is None:
                    return self._unknown(why, len(batch))
                if attempt == RETRIES and not self._session.heals:
                    self.stopped = f"{why}, and it never happened, {RETRIES + 1} times"
            except Broken as broken:
                why = str(broken)
                self._back()
                if not self._session.heals:
                    return self._stop(why, len(batch))
                self._is_away(why)
                if attempt < RETRIES and not self._pause(attempt):
                    break
            else:
                self._is_back()
                self._publish(unit)
                return replies
            if self.stopped is not None:
                return self._stop(self.stopped, len(batch))
        return [Unavailable(f"gave up after {attempt + 1} tries: {why}", hint=AWAY_HINT) for _ in batch]

    def _in_halves(self, batch: Sequence[c.Command], behind: Names) -> list[Any]:
        """The second one after the first, also where a run has become free between them, if both name it in one way."""
        half = len(batch) // 2
        first = self._run(batch[:half], behind)
        pairs = zip(batch[:half], first, strict=True)
        waiting = (named(command) for command, reply in pairs if isinstance(reply, Postponed))
        return [*first, *self._run(batch[half:], behind.union(*waiting))]

    def _back(self) -> None:
        """Rolls back; a store that cannot even do that is written to no more."""
        try:
            self._session.rollback()
        except Exception as error:
            log.exception("cannot roll back")
            self.stopped = f"cannot roll back: {error}"

    def _happened(self, why: str) -> bool | None:
        """Asks the lane's own row whether a commit with a lost answer happened. None: the store does not say."""
        log.warning("%s", why)
        for tries in range(ASKED if self._session.heals else RETRIES + 1):
            try:
                happened = self._session.committed()
            except Exception as error:
                log.warning("could not ask whether the commit happened: %s", error)
                if self._session.heals:
                    self._is_away(why)
                if not self._pause(tries):
                    break
            else:
                self._is_back()
                return happened
        return None

    def _unknown(self, why: str, count: int) -> list[Any]:
        """Nobody knows whether a batch is there. A caller who sends it again finds out: it is done once."""
        self._on_gap()
        if not self._session.heals:
            return self._stop(f"{why}; and the store does not answer", count)
        return [Unavailable(f"{why}; and the store is away", hint=UNKNOWN_HINT) for _ in range(count)]

    # ── a store that is away ─────────────────────────────────────────────────────────────────────────────────────

    def _is_away(self, why: str) -> None:
        if self.away is None:
            log.warning("the store is away: %s", why)
        self.away = why

    def _is_back(self) -> None:
        """What others did meanwhile was told to nobody here."""
        if self.away is not None:
            log.warning("the store is back")
            self.away = None
            self._on_gap()

    def _pause(self, tries: int) -> bool:
        """Waits before the store is asked again; who waits in the queue does not do so for long. False: it closes."""
        if tries >= RETRIES and self.away is not None:
            self._turn_away(f"the store is away: {self.away}", AWAY_HINT)
        self._wake.clear()
        if not self._closing:
            self._wake.wait(pause_s(tries, self.name, self._now))
        return not self._closing

    def _until_back(self) -> None:
        """Asks the store whether it takes a commit until it does, or until the lane is closed."""
        tries = RETRIES
        while self.away is not None:
            if not self._pause(tries):
                self._turn_away(f"the store is away: {self.away}", AWAY_HINT)
                return
            try:
                self._session.begin()
                self._session.commit()
            except Exception as error:
                self._back()
                self._is_away(str(error))
            else:
                self._is_back()
            tries += 1

    def _stop(self, why: str, count: int) -> list[Any]:
        """The store cannot write: everybody is told so, and readiness says it."""
        if self.stopped is None:
            log.error("the lane has stopped: %s", why)
        self.stopped = why
        return [Unavailable(f"the store cannot write: {why}", hint=STOPPED_HINT) for _ in range(count)]

    def _time(self) -> int:
        """Never below the last, unless the clock was put back: every process on the store follows that.

        One that did not would take leases which others begin for leases of the past.
        """
        told = self._session.now
        if told is not None:
            self._on_time(told)
        now = self._clock_ms()
        return self._now if now < self._now < now + CLOCK_PUT_BACK_MS else now

    def _publish(self, unit: Unit | None) -> None:
        """Tells those who wait. What goes wrong here cannot undo the commit, nor delay the answers for long."""
        if unit is None:
            return
        self.commits += 1
        self._limited.update(unit.pools.rows)
        try:
            hint = self._on_commit(summary(unit, self._limited))
        except Exception:
            log.exception("a hint was lost")
        else:
            if hint is not None:
                self._hints.append(hint)
        callbacks.warn(unit)
        unit.close()

    def _decided(self, batch: Sequence[c.Command], replies: list[Any], behind: Names) -> Unit | None:
        """One try up to the commit: begin, load, decide, flush, read. Answers what is to commit, if anything is."""
        clock, session, timings = self._monotonic, self._session, self.timings
        t0 = clock()
        need, refused = need_of(batch)
        session.begin(ahead(need))
        t1 = clock()
        self._fault("begun")
        self._now = now = self._time()
        unit = Unit(self._settings, mutations=self._mutations, app=session.app, elsewhere=self._passes_on)
        unit.bring = partial(self._bring, unit, now)
        if t1 < self._no_sweep_until:
            need.internal.pop(_LAST, None)
        load(session, unit, need, now)
        t2 = clock()
        try:
            replies += decide_all(unit, batch, now, refused, behind)
        except Away as away:
            raise away.error from away
        t3 = clock()
        self._fault("decided")
        if not unit.changed:
            if unit.readings:
                session.read(unit.readings)
            session.abandon()
            unit.close()
            return None
        session.flush(unit, now)
        if unit.readings:
            session.read(unit.readings)
        self._fault("flushed")
        timings.begin += t1 - t0
        timings.load += t2 - t1
        timings.decide += t3 - t2
        timings.flush += clock() - t3
        timings.longest_begin = max(timings.longest_begin, t1 - t0)
        return unit

    def _commit(self) -> None:
        began = self._monotonic()
        self._session.commit()
        self._fault("committed")
        self.timings.commit += self._monotonic() - began

    def _bring(self, unit: Unit, now: int, command: c.Command) -> None:
        """Loads what a command needs that is decided inside another one of the batch."""
        need, refused = need_of([command])
        for error in refused.values():
            raise error
        try:
            load(self._session, unit, need, now, wait=True)
        except (Retry, Broken) as error:
            raise Away(error) from error  # past the function that asks: what comes is no matter of its own


AWAY_HINT = "Send the same again after a moment; it goes on by itself when the database is back."
UNKNOWN_HINT = "Send the same again, under the same id or number: what was done is not done twice."
STOPPED_HINT = "Free disk space or mend the disk, then start the process again; nothing that was answered is lost."


def _refusal(refused: Exception, command: c.Command) -> StepwellError:
    """What the one command that the batch cannot be decided or stored with is told."""
    if isinstance(refused, Refused):
        hint = "Check the text for characters that are not valid Unicode, and the ids for rows that exist."
        return Invalid(f"the store refuses this command: {refused}", hint=hint)
    return refusal(command, refused)

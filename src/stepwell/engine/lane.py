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
from typing import Any, Protocol

from msgspec import Struct

from stepwell.engine import callbacks
from stepwell.engine.clock import steady_s
from stepwell.engine.ends import kept
from stepwell.kernel.calls import Away, Postponed
from stepwell.kernel.decide import decide_all, refusal
from stepwell.kernel.needs import need_of
from stepwell.kernel.unit import Mutations, Unit
from stepwell.model import commands as c
from stepwell.model.entries import DELIVERABLE, ENDS
from stepwell.model.errors import Internal, Invalid, StepwellError, Unavailable
from stepwell.model.ids import unit_interval
from stepwell.model.rows import Entry, Run
from stepwell.model.settings import Settings
from stepwell.store.load import load
from stepwell.store.port import Broken, Refused, Retry, Session, Unknowable

log = logging.getLogger("stepwell.lane")

RETRIES = 5
#: A clock that goes back by less than this is slewed; by more, it was put back.
CLOCK_PUT_BACK_MS = 1_000


class Answer(Protocol):
    """Who waits for a reply: a future, or whoever has its methods and wants no more than that."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


Item = tuple[c.Command, Answer, asyncio.AbstractEventLoop | None]
#: Something to call on an event loop, together with the answers that go there.
Hint = tuple[asyncio.AbstractEventLoop, Callable[[], None]]
#: A batch's order: heartbeats before anything that could end their leases, and what deletes after all who name it.
_LAST = c.Sweep
_ORDER: dict[type[c.Command], int] = {c.Sync: 0, _LAST: 2, c.Prune: 3}


class Wake(Struct, gc=False):
    """What others wrote to a run for its body, with no other entry for it since `after`. `seq` is the last of them.

    `epoch`: that of the lease under which the body runs; 0: of none, as in a pause. No `entries` where they are too
    large to be handed on: whoever wants them reads them.
    """

    after: int
    epoch: int = 0
    seq: int = 0
    entries: list[Entry] | None = None


class Committed(Struct, gc=False):
    """What a commit did, for those who wait: a hint, never the truth.

    `wakes`: runs that others wrote to, for their bodies. `ended`: runs that are terminal now, with their
    rows where these can be handed on.
    """

    runs: frozenset[int] = frozenset()
    wakes: dict[int, Wake] = {}
    ended: dict[int, Run | None] = {}
    ready: bool = False
    earliest_due: int | None = None
    freed: frozenset[tuple[str, str, str]] = frozenset()  # pool keys (scope, pool, key) that have a slot more
    messages: bool = False


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
    """Runs on a thread of its own. `submit` may be called from any thread and any event loop."""

    def __init__(
        self,
        session: Session,
        *,
        settings: Settings,
        clock_ms: Callable[[], int],
        on_commit: Callable[[Committed], Hint | None],
        mutations: Mutations | None = None,
        fault: Callable[[str], None] = no_fault,
        monotonic: Callable[[], float] = steady_s,
        name: str = "lane",
    ) -> None:
        self.name, self.timings = name, Timings()
        self.stopped: str | None = None
        self.commits = 0
        self._session, self._settings = session, settings
        self._clock_ms, self._monotonic, self._on_commit = clock_ms, monotonic, on_commit
        self._mutations, self._fault = mutations, fault
        self._queue: deque[Item] = deque()
        self._later: deque[Item] = deque()  # what the last batch postponed; the thread's own
        self._wake = threading.Event()
        self._limited: set[tuple[str, str]] = set()
        self._hints: list[Hint] = []  # of the batch under way
        self._idle = self._closing = False
        self._now = 0
        self._alive_at = monotonic()
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
        self._turn_away()
        self._session.close()

    def _turn_away(self) -> None:
        """Answers those that came too late. Two threads may do this: who takes an item off the queue answers it."""
        with contextlib.suppress(IndexError):
            while True:
                _answer([(self._queue.popleft(), Unavailable("the engine is closed", hint=STOPPED_HINT))])

    @property
    def depth(self) -> int:
        """Commands that wait."""
        return len(self._queue) + len(self._later)

    def submit(self, command: c.Command, answer: Answer, loop: asyncio.AbstractEventLoop | None) -> None:
        """Queues a command; past the bound of the queue, and when the lane has stopped, `Unavailable` at once."""
        if type(command) not in (c.Sync, c.Sweep) and len(self._queue) >= self._settings.queue_commands:
            raise Unavailable(
                f"{len(self._queue):,} commands wait already",
                hint="The server has more work than it can commit. Try again after a moment, with back-off.",
            )
        if self.stopped is not None or self._closing:
            raise Unavailable(self.stopped or "the engine is closed", hint=STOPPED_HINT)
        self._queue.append((command, answer, loop))
        if self._idle:
            self._idle = False
            self._wake.set()
        if self._closing and not self._thread.is_alive():
            self._turn_away()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        while True:
            if not self._queue and not self._later:
                if self._closing:
                    return
                self._wait()
                continue
            items = self._take()
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

    def _take(self) -> list[Item]:
        """The next batch: what was postponed comes first, and leaves room for others."""
        limit = self._settings.batch_commands
        old = min(len(self._later), (limit + 1) // 2)
        items = [self._later.popleft() for _ in range(old)]
        items += [self._queue.popleft() for _ in range(min(len(self._queue), limit - old))]
        return items

    def _tell(self, items: list[Item], replies: list[Any]) -> None:
        """Answers all but what was postponed, which stays in its order."""
        pairs = list(zip(items, replies, strict=True))
        later = [item for item, reply in pairs if isinstance(reply, Postponed)]
        if later:
            self._later.extendleft(reversed(later))
            pairs = [pair for pair in pairs if not isinstance(pair[1], Postponed)]
        hints, self._hints = self._hints, []
        _answer(pairs, hints)

    def _wait(self) -> None:
        self._wake.clear()
        self._idle = True
        if not self._queue and not self._closing:
            self._wake.wait(1.0)
        self._idle = False
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

    def _run(self, batch: Sequence[c.Command]) -> list[Any]:
        """The replies of a batch, whatever happens on the way."""
        why = ""
        for attempt in range(RETRIES + 1):
            replies: list[Any] = []
            try:
                committed = self._once(batch, replies)
            except Retry as busy:
                why = str(busy)
                self._back()
                time.sleep(0.01 * (attempt + 1) * (0.5 + unit_interval(attempt, self._now)))
            except (Refused, StepwellError, TypeError, KeyError, ValueError, AttributeError) as refused:
                self._back()
                if len(batch) > 1:
                    half = len(batch) // 2
                    return [*self._run(batch[:half]), *self._run(batch[half:])]
                return [_refusal(refused, batch[0])]
            except Unknowable as lost:
                why = f"the answer to a commit was lost: {lost}"
                if self._happened(why):
                    return replies
                if attempt == RETRIES:
                    self.stopped = f"{why}, and it never happened, {RETRIES + 1} times"
            except Broken as broken:
                self._back()
                return self._stop(str(broken), len(batch))
            else:
                self._publish(committed)
                return replies
            if self.stopped is not None:
                return self._stop(self.stopped, len(batch))
        return [Unavailable(f"gave up after {RETRIES + 1} tries: {why}") for _ in batch]

    def _back(self) -> None:
        """Rolls back; a store that cannot even do that is written to no more."""
        try:
            self._session.rollback()
        except Exception as error:
            log.exception("cannot roll back")
            self.stopped = f"cannot roll back: {error}"

    def _happened(self, why: str) -> bool:
        """Asks the lane's own row whether a commit with a lost answer happened."""
        log.warning("%s", why)
        for attempt in range(RETRIES + 1):
            try:
                return self._session.committed()
            except Exception:
                log.exception("could not ask whether the commit happened")
                time.sleep(0.05 * 2**attempt)
        self.stopped = f"{why}; and the store does not answer"
        return False

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
        now = self._clock_ms()
        return self._now if now < self._now < now + CLOCK_PUT_BACK_MS else now

    def _publish(self, unit: Unit | None) -> None:
        """Tells those who wait. What goes wrong here cannot undo the commit, nor delay the answers for long."""
        if unit is None:
            return
        self.commits += 1
        self._limited |= unit.pools.rows.keys()
        try:
            hint = self._on_commit(summary(unit, self._limited))
        except Exception:
            log.exception("a hint was lost")
        else:
            if hint is not None:
                self._hints.append(hint)
        callbacks.warn(unit)
        unit.close()

    def _once(self, batch: Sequence[c.Command], replies: list[Any]) -> Unit | None:
        """One try: begin, load, decide, flush, read, commit. Answers what was committed, if there was anything."""
        clock, session, timings = self._monotonic, self._session, self.timings
        t0 = clock()
        session.begin()
        t1 = clock()
        self._fault("begun")
        self._now = now = self._time()
        unit = Unit(self._settings, mutations=self._mutations, app=session.app)
        unit.bring = partial(self._bring, unit, now)
        need, refused = need_of(batch)
        if t1 < self._no_sweep_until:
            need.internal.pop(_LAST, None)
        load(session, unit, need, now)
        t2 = clock()
        try:
            replies += decide_all(unit, batch, now, refused)
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
        t4 = clock()
        self._fault("flushed")
        session.commit()
        self._fault("committed")
        timings.begin += t1 - t0
        timings.load += t2 - t1
        timings.decide += t3 - t2
        timings.flush += t4 - t3
        timings.commit += clock() - t4
        timings.longest_begin = max(timings.longest_begin, t1 - t0)
        return unit

    def _bring(self, unit: Unit, now: int, command: c.Command) -> None:
        """Loads what a command needs that is decided inside another one of the batch."""
        need, refused = need_of([command])
        for error in refused.values():
            raise error
        load(self._session, unit, need, now)


STOPPED_HINT = "Free disk space or mend the disk, then start the process again; nothing that was answered is lost."


def _refusal(refused: Exception, command: c.Command) -> StepwellError:
    """What the one command that the batch cannot be decided or stored with is told."""
    if isinstance(refused, Refused):
        hint = "Check the text for characters that are not valid Unicode, and the ids for rows that exist."
        return Invalid(f"the store refuses this command: {refused}", hint=hint)
    return refusal(command, refused)


def summary(unit: Unit, limited: set[tuple[str, str]]) -> Committed:
    """What those who wait want to know of a unit that was committed; `limited` pools have a slot more with each end."""
    runs = frozenset(unit.runs.dirty).union(one.run_no for one in unit.outputs)
    rows = unit.runs.rows
    ended = {
        one.run_no: kept(rows[one.run_no]) for one in unit.entries if one.kind in ENDS and rows[one.run_no].terminal
    }
    committed = Committed(runs, _wakes(unit) if unit.woken else {}, ended, messages=bool(unit.sent))
    freed: set[tuple[str, str, str]] = set()
    for key in unit.tasks.dirty:
        task = unit.tasks.rows[key]
        if task.state == "ready" or (task.state != "leased" and (task.scope, task.pool) in limited):
            committed.ready = True
        if task.state == "due" and task.due_at is not None:
            earliest = committed.earliest_due
            committed.earliest_due = task.due_at if earliest is None else min(earliest, task.due_at)
        if task.pool_key is not None and task.state != "leased" and (task.scope, task.pool) in limited:
            freed.add((task.scope, task.pool, task.pool_key))
    committed.freed = frozenset(freed)
    return committed


def _wakes(unit: Unit) -> dict[int, Wake]:
    wakes: dict[int, Wake] = {}
    for one in unit.entries:
        if one.kind in DELIVERABLE and (after := unit.woken.get(one.run_no)) is not None:
            wake = wakes.get(one.run_no)
            if wake is None:
                run = unit.runs.rows[one.run_no]
                wake = wakes[one.run_no] = Wake(after, run.epoch if run.status == "running" else 0, entries=[])
            wake.seq = one.seq
            if one.data.startswith("@"):
                wake.entries = None
            if wake.entries is not None:
                wake.entries.append(one)
    return wakes


def _answer(answered: list[tuple[Item, Any]], hints: Sequence[Hint] = ()) -> None:
    """Gives every caller its reply, and the hints of the commit: one hop to each event loop."""
    hops: dict[asyncio.AbstractEventLoop, tuple[list[Callable[[], None]], list[tuple[Answer, Any]]]] = {}
    for loop, hint in hints:
        hops.setdefault(loop, ([], []))[0].append(hint)
    for (_, answer, caller), reply in answered:
        if caller is None:
            _resolve([], [(answer, reply)])
        else:
            hops.setdefault(caller, ([], []))[1].append((answer, reply))
    for loop, (told, pairs) in hops.items():
        try:
            loop.call_soon_threadsafe(_resolve, told, pairs)
        except RuntimeError:
            log.debug("%d answers came after their event loop was closed", len(pairs))


def _resolve(hints: list[Callable[[], None]], pairs: list[tuple[Answer, Any]]) -> None:
    for hint in hints:
        try:
            hint()
        except Exception:
            log.exception("a hint was lost")
    for answer, reply in pairs:
        if answer.done():
            continue
        if isinstance(reply, StepwellError):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

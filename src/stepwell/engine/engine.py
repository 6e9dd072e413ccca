"""The engine: one async object over a store. Commands go in, replies come out, waiters are told of commits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from stepwell.engine.answers import Hint, Submit
from stepwell.engine.borrowed import PROCESS
from stepwell.engine.clock import StoreClock, steady_s
from stepwell.engine.committed import Committed, Wake
from stepwell.engine.ends import Ends
from stepwell.engine.entropy import Entropy
from stepwell.engine.hearsay import Others
from stepwell.engine.inside import refuse_inside
from stepwell.engine.lane import Lane, no_fault
from stepwell.engine.lanes import Lanes
from stepwell.engine.roles import Promoter, Repeater, Role, Stamper, Timekeeper, Watcher
from stepwell.kernel.unit import Mutations
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.model.ids import time_ordered_id
from stepwell.model.rows import Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, Store
from stepwell.store.port import Stamper as StoreStamper

T = TypeVar("T")
log = logging.getLogger("stepwell.engine")
READERS = 2
WATCH_S = 0.05
PRUNE_S = 60.0
#: How many messages one commit of the lane of mutations takes: others deliver those that call none.
CALLBACKS = 20
#: Who waits for a run bears with a store that cannot be read for so long: a failover takes less.
AWAY_S = 60.0
#: A store that has not answered for so long is not waited for when the engine closes.
CLOSE_S = 30.0
#: How often changes get positions, where a commit does not give them, and how many in one turn.
STAMP_S = 0.1
STAMPED = 10_000


class Engine(AbstractAsyncContextManager["Engine"]):
    """Embeds the kernel in an event loop. `roles=False` leaves housekeeping to other processes.

    `prepare` gets the store when its schema is up to date: an app brings its own tables up to date then. The time is
    that of the store's server, or of this machine where there is none, unless `clock_ms` says otherwise.
    """

    def __init__(
        self,
        store: Store,
        *,
        settings: Settings | None = None,
        clock_ms: Callable[[], int] | None = None,
        entropy: Callable[[int], bytes] | None = None,
        mutations: Mutations | None = None,
        fault: Callable[[str], None] = no_fault,
        roles: bool = True,
        prepare: Callable[[Store], object] = lambda store: None,
    ) -> None:
        self.store = store
        self.settings = settings or Settings()
        store_clock = StoreClock()
        self.clock_ms = store_clock if clock_ms is None else clock_ms
        self._on_time = store_clock.told  # nobody looks at it where there is another clock
        self._entropy = entropy or Entropy()
        self._prepare, self._mutations, self._fault, self._with_roles = prepare, mutations, fault, roles
        self._readers: SimpleQueue[Reader | None] = SimpleQueue()  # None: there are none any more
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="stepwell-read")
        self._ready: set[asyncio.Event] = set()
        self._waiters: dict[int, set[asyncio.Event]] = {}
        self._enders: dict[int, set[asyncio.Event]] = {}
        self._ends: Ends | None = Ends() if roles else None  # without a watcher, nobody says when it is out of date
        self._listeners: dict[int, Callable[[Wake], None]] = {}
        self._roles: list[Role] = []
        self._timekeeper: Timekeeper | None = None
        self._deliver: list[Repeater] = []
        self._stamper: StoreStamper | None = None
        self._promoter: Promoter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes: Lanes | None = None
        self._closed = self._borrows = self._reads = False
        self._opened = 0
        self._others = Others(self._elsewhere, self._hint_all)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(self._loop.run_in_executor(self._threads, self._open))
        try:
            await asyncio.shield(opening)
        except BaseException:  # the thread goes on when we are canceled, and what it opened is ours to close
            late = self._loop.call_later(CLOSE_S, self._give_up)
            await asyncio.wait([opening])
            late.cancel()
            await self.close()
            raise
        self._reads = True
        self._others.join(self.store, self._loop)
        self.lanes.start()
        PROCESS.enter(self.settings.switch_us, self.settings.collect_objects)
        self._borrows = True
        if self._with_roles:
            self._start_roles()
        return self

    def _open(self) -> None:
        self.store.migrate()
        self._prepare(self.store)
        for _ in range(READERS):
            self._readers.put(self.store.reader())
            self._opened += 1
        many = self.store.many_lanes
        limited: set[tuple[str, str]] = set()
        make = partial(self._make_lane, limited)
        calls = many and self._mutations is not None
        self._lanes = Lanes.open(make, self.settings.lanes if many else 1, calls=calls)

    def _make_lane(self, limited: set[tuple[str, str]], passes_to: Lane | None) -> Lane:
        name = self.new_id("lane_")
        return Lane(
            self.store.session(name),
            settings=self.settings,
            clock_ms=self.clock_ms,
            on_commit=self._committed,
            on_gap=self._missed,
            on_time=self._on_time,
            mutations=self._mutations,
            fault=self._fault,
            name=name,
            limited=limited,
            passes_to=passes_to,
        )

    def _start_roles(self) -> None:
        poll_s = self.settings.poll_ms / 1_000
        next_due = partial(self.read, lambda reader: reader.next_due(), snapshot=False)
        self._timekeeper = Timekeeper(self.submit, next_due, self.clock_ms, wait_s=poll_s)
        self._deliver = [Repeater("delivery", self.submit, c.Deliver(), wait_s=poll_s)]
        if self.lanes.calls is not None:
            call = partial(self._ask, self.lanes.calls.submit)
            self._deliver.append(Repeater("callbacks", call, c.Deliver(CALLBACKS), wait_s=poll_s))
        self._promoter = Promoter(self.submit, wait_s=poll_s)
        others = partial(self.read, lambda reader: reader.others(self.lanes.names), snapshot=False)
        watcher = Watcher(self.store.version, others, self._hint_all, wait_s=min(WATCH_S, poll_s))
        self._roles = [
            self._timekeeper,
            *self._deliver,
            self._promoter,
            Repeater("sweeper", self.submit, c.Sweep(), wait_s=poll_s),
            Repeater("pruner", self.submit, c.Prune(), wait_s=PRUNE_S),
            watcher,
        ]
        if (stamper := self.store.stamper(self.new_id("stamper_"))) is not None:
            self._stamper = stamper
            self._roles.append(
                Stamper(
                    lambda: (self.lanes.commits, watcher.count, self._others.heard),
                    lambda: self._in_thread(partial(stamper.stamp, STAMPED)),
                    wait_s=min(STAMP_S, poll_s),
                )
            )
        for role in self._roles:
            role.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops the roles, decides what is in the queue, closes the store. Once: closing again does nothing.

        Whoever still waits for something here gets `Unavailable`. A store that does not answer holds it up for a while.
        """
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        late = loop.call_later(CLOSE_S, self._give_up)
        try:
            await self._close(loop)
        finally:
            late.cancel()

    def _give_up(self) -> None:
        log.warning("the store does not answer; what waits for it is given up")
        self.store.cut()

    async def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        await asyncio.gather(*(role.stop() for role in self._roles))
        if self._lanes is not None:
            await loop.run_in_executor(self._threads, self._lanes.close)
        if self._borrows:
            PROCESS.leave()
        self._reads = False
        await loop.run_in_executor(self._threads, self._close_readers)
        self._threads.shutdown()
        self._wake_waiters()

    def _close_readers(self) -> None:
        for _ in range(self._opened):
            if (reader := self._readers.get()) is not None:
                reader.close()
        self._readers.put(None)
        if self._stamper is not None:
            self._stamper.close()
        self.store.close()

    @property
    def lanes(self) -> Lanes:
        if self._lanes is None:
            raise Unavailable("the engine has not started", hint="Use it as `async with Engine(store) as engine:`.")
        return self._lanes

    @property
    def trouble(self) -> str | None:
        """Why nothing can be committed now; None when all is well. It may pass, unless it is `stopped`, too."""
        return self.lanes.trouble

    @property
    def stopped(self) -> str | None:
        """Why nothing is committed any more until this process starts again; None otherwise."""
        return self.lanes.stopped

    def new_id(self, prefix: str = "run_") -> str:
        """A time-ordered id that nobody can guess."""
        return time_ordered_id(prefix, self.clock_ms(), self._entropy(10))

    def secret(self) -> str:
        """128 random bits."""
        return self._entropy(16).hex()

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def submit(self, command: c.AcceptEvent | c.ReplayEvent) -> Awaitable[c.Accepted]: ...
    @overload
    def submit(self, command: c.SyncManifests) -> Awaitable[c.Revision]: ...
    @overload
    def submit(self, command: c.StartRun) -> Awaitable[c.Started]: ...
    @overload
    def submit(self, command: c.Claim) -> Awaitable[c.Claimed]: ...
    @overload
    def submit(self, command: c.Record | c.Mutate) -> Awaitable[c.Recorded]: ...
    @overload
    def submit(self, command: c.Park | c.Finish | c.Fail | c.Release) -> Awaitable[c.Done]: ...
    @overload
    def submit(self, command: c.Sync) -> Awaitable[c.Beats]: ...
    @overload
    def submit(self, command: c.Say) -> Awaitable[c.Said]: ...
    @overload
    def submit(self, command: c.Signal) -> Awaitable[c.Signaled]: ...
    @overload
    def submit(
        self, command: c.Cancel | c.Terminate | c.HoldRun | c.ReleaseRun | c.Restart
    ) -> Awaitable[c.RunState]: ...
    @overload
    def submit(self, command: c.Command) -> Awaitable[Any]: ...
    def submit(self, command: c.Command) -> Awaitable[Any]:
        """Sends a command to its lane. Awaiting it gives the reply, durable, or raises the refusal.

        Raises `Nested` at once from inside a mutation: it would wait for itself.
        """
        refuse_inside()
        return self._ask(self.lanes.submit, command)

    @staticmethod
    def _ask(submit: Submit, command: c.Command) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        try:
            submit(command, answer, loop)
        except Unavailable as refusal:
            answer.set_exception(refusal)
        return answer

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, query: Callable[[Reader], T], *, snapshot: bool = True) -> T:
        """Runs a query on a reading connection, on a thread. All of it sees one snapshot, which may be left out for a
        single question, and has to be for a long look.
        """
        refuse_inside()
        if not self._reads:
            raise self._unreadable()
        return await self._in_thread(lambda: self._with_reader(query, snapshot))

    def _unreadable(self) -> Unavailable:
        hint = "Ask where the database is open; what was under way goes on there."
        return Unavailable(f"the engine {'is closed' if self._closed else 'has not started'}", hint=hint)

    def _with_reader(self, query: Callable[[Reader], T], snapshot: bool) -> T:
        reader = self._readers.get()
        try:
            if reader is None:  # its thread began after that of the closing
                raise self._unreadable()
            if not snapshot:
                return query(reader)
            try:
                return _at_once(query, reader)
            except Unavailable:  # the connection may have been cut: a fresh one sees a snapshot of its own
                return _at_once(query, reader)
        finally:
            self._readers.put(reader)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ready_hint(self) -> asyncio.Event:
        """An event that is set when tasks may have become ready; the caller clears it, and polls all the same."""
        event = asyncio.Event()
        self._ready.add(event)
        return event

    def drop_hint(self, event: asyncio.Event) -> None:
        """Ends a `ready_hint`."""
        self._ready.discard(event)

    async def wait_run(
        self, number: int, until: Callable[[Run], bool], *, timeout_s: float | None = None
    ) -> Run | None:
        """The run as soon as it fits `until`; None when it is gone. Hints shorten a bounded poll.

        Raises TimeoutError after `timeout_s`.
        """
        with _waiting(self._waiters, number) as event:
            async with nullcontext() if timeout_s is None else asyncio.timeout(timeout_s):
                while True:
                    run = await self._look(number, event)
                    if run is None or until(run):
                        return run
                    await self._hint(event)

    async def wait_end(self, number: int, *, since: float | None = None, timeout_s: float | None = None) -> Run | None:
        """The run when it has ended; None when it is gone. What happens to it until then wakes nobody.

        Nothing is read where this process ends it. `since`: the steady clock in seconds at which the run was open.
        Raises TimeoutError after `timeout_s`.
        """
        with _waiting(self._enders, number) as event:
            async with nullcontext() if timeout_s is None else asyncio.timeout(timeout_s):
                quiet = since is not None and self._ends is not None and self._ends.silent_on(number, since)
                while True:
                    event.clear()
                    run = None if self._ends is None else self._ends.get(number)
                    if run is not None:
                        return run
                    if not quiet:
                        run = await self._look(number, event)
                        if run is None or run.terminal:
                            return run
                    await self._hint(event)
                    quiet = False

    async def _look(self, number: int, event: asyncio.Event) -> Run | None:
        """The run as it stands. Who waits for one does not care that the store is away for a while."""
        until = steady_s() + AWAY_S
        while True:
            event.clear()
            try:
                return await self.read(lambda reader: reader.run_by_no(number))
            except Unavailable:
                if not self._reads or steady_s() > until:
                    raise
            await self._hint(event)

    async def _hint(self, event: asyncio.Event) -> None:
        """Waits for a hint, or for a poll's time: hints may be lost."""
        poll = asyncio.get_running_loop().call_later(self.settings.poll_ms / 1_000, event.set)
        try:
            await event.wait()
        finally:
            poll.cancel()

    def run_hint(self, number: int) -> AbstractContextManager[asyncio.Event]:
        """An event that is set when a commit touched a run or what it said; clear it before you read, and poll too."""
        return _waiting(self._waiters, number)

    def listen(self, number: int, told: Callable[[Wake], None]) -> None:
        """Calls `told` on the loop with what others wrote to a run for its body, after each such commit.

        One listener for each run: the worker that holds it. A hint, so poll too.
        """
        self._listeners[number] = told

    def unlisten(self, number: int, told: Callable[[Wake], None]) -> None:
        """Ends a `listen`, if there was no other since."""
        if self._listeners.get(number) == told:
            del self._listeners[number]

    def _elsewhere(self, committed: Committed) -> None:
        """Called on the loop: another process has committed."""
        if self._ends is not None:
            self._ends.saw(committed.runs, {})
        self._tell(committed)

    def _committed(self, committed: Committed) -> Hint | None:
        """Called on the thread of the lane that committed."""
        if self._ends is not None:
            self._ends.saw(committed.runs, committed.ended, committed.reopened)
        self._others.tell(committed)
        if self._loop is None or not self._wanted(committed):
            return None
        return self._loop, partial(self._tell, committed)

    def _wanted(self, committed: Committed) -> bool:
        return (
            (committed.ready and bool(self._ready))
            or committed.messages
            or bool(committed.freed)
            or (committed.earliest_due is not None)
            or (bool(self._waiters) and any(number in self._waiters for number in committed.runs))
            or (bool(self._enders) and any(number in self._enders for number in committed.ended))
            or (bool(self._listeners) and any(number in self._listeners for number in committed.wakes))
        )

    def _tell(self, committed: Committed) -> None:
        if committed.ready:
            for event in self._ready:
                event.set()
        for number in committed.runs & self._waiters.keys():
            for event in self._waiters[number]:
                event.set()
        for number in committed.ended.keys() & self._enders.keys():
            for event in self._enders[number]:
                event.set()
        for number, wake in committed.wakes.items():
            if (told := self._listeners.get(number)) is not None:
                told(wake)
        if committed.earliest_due is not None and self._timekeeper is not None:
            self._timekeeper.due(committed.earliest_due)
        if committed.messages:
            for role in self._deliver:
                role.hint()
        if committed.freed and self._promoter is not None:
            self._promoter.freed(committed.freed)

    def _missed(self) -> None:
        """Called on the lane's thread: commits may have been made that nobody here was told of."""
        if self._ends is not None:
            self._ends.forget()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._hint_all)

    def _hint_all(self) -> None:
        if self._ends is not None:
            self._ends.forget()
        for event in self._ready:
            event.set()
        self._wake_waiters()
        for role in self._roles:
            if not isinstance(role, Watcher | Stamper) and role.wait_s < PRUNE_S:
                role.hint()

    def _wake_waiters(self) -> None:
        for waiters in (self._waiters, self._enders):
            for event in (event for events in waiters.values() for event in events):
                event.set()


def _at_once(query: Callable[[Reader], T], reader: Reader) -> T:
    with reader.snapshot():
        return query(reader)


@contextmanager
def _waiting(waiters: dict[int, set[asyncio.Event]], number: int) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    waiters.setdefault(number, set()).add(event)
    try:
        yield event
    finally:
        waiters[number].discard(event)
        if not waiters[number]:
            del waiters[number]

"""The lanes of an engine, and which of them decides a command (source: DESIGN, PostgreSQL: commands routed by run).

What names a run by its lease goes to the lane of its number, what names it by id to that of the id: so one caller's
commands to one run keep their order as long as all are of one of these kinds. Between the kinds, and beside a call of a
mutation or an event that starts the run, there is none: whoever sends both awaits the first before the second.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from stepwell.engine.answers import Answer
from stepwell.engine.lane import Lane, Timings
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable

#: Makes a lane; the argument is the one that it passes on to what calls mutations, None: it calls them itself.
Make: TypeAlias = Callable[[Lane | None], Lane]

_run = attrgetter("lease.run_no")
_run_id = attrgetter("scope", "run_id")
#: By what a command chooses its lane. All others go to the first one: housekeeping, and heartbeats, which are to be
#: decided before the sweep that would end their leases.
_ROUTES: dict[type[c.Command], Callable[[Any], Hashable]] = {
    **dict.fromkeys((c.Record, c.Mutate, c.Park, c.Finish, c.Fail, c.Release, c.Say), _run),
    **dict.fromkeys((c.Signal, c.Cancel, c.Terminate, c.HoldRun, c.ReleaseRun, c.Restart), _run_id),
    c.StartRun: attrgetter("scope", "id"),
    c.AcceptEvent: attrgetter("scope", "event.id"),
    c.AdoptEvent: attrgetter("scope", "event.id"),
    c.ReplayEvent: attrgetter("scope", "event_id"),
    c.Claim: attrgetter("request"),  # a secret: any lane, and the same one for a repeat
}
_CALLING = (c.Mutate, c.Invoke)


class Lanes:
    """`ordinary` lanes share the commands; `calls` decides what calls mutations, None: every lane does."""

    def __init__(self, ordinary: Sequence[Lane], calls: Lane | None = None) -> None:
        self.first, self.calls = ordinary[0], calls
        self.all = (*ordinary, *(() if calls is None else (calls,)))
        self._ordinary = tuple(ordinary)

    @classmethod
    def open(cls, make: Make, count: int, *, calls: bool) -> "Lanes":
        """`count` lanes, and with `calls` one more for mutations. Raises what `make` raises, and leaves none open."""
        made: list[Lane] = []
        try:
            caller = make(None) if calls else None
            made += [] if caller is None else [caller]
            for _ in range(count):
                made.append(make(caller))
        except BaseException:
            for lane in made:
                lane.close()
            raise
        return cls([lane for lane in made if lane is not caller], caller)

    def start(self) -> None:
        for lane in self.all:
            lane.start()

    def close(self) -> None:
        """Decides what is in the queues, then ends all. Blocks until their threads have ended."""
        for lane in self.all:  # that of the mutations last: the others pass commands on to it
            lane.close()

    def submit(self, command: c.Command, answer: Answer, loop: asyncio.AbstractEventLoop | None) -> None:
        """Queues a command, as `Lane.submit`. The limits of a pool go to all lanes, ahead of what names the pool."""
        if len(self.all) == 1:
            self.first.submit(command, answer, loop)
        elif type(command) is c.SetPool and command.limits_only:
            everybody = _Everybody(answer, len(self.all))
            for lane in self.all:
                everybody.ask(lane, command, loop)
        else:
            self.of(command).submit(command, answer, loop)

    def of(self, command: c.Command) -> Lane:
        """The lane that decides a command. One without sense is refused by the first."""
        if self.calls is not None and type(command) in _CALLING:
            return self.calls
        route = _ROUTES.get(type(command))
        if route is None:
            return self.first
        try:
            return self._ordinary[hash(route(command)) % len(self._ordinary)]
        except (AttributeError, TypeError):
            return self.first

    @property
    def names(self) -> tuple[str, ...]:
        """Of their rows in the store."""
        return tuple(lane.name for lane in self.all)

    @property
    def trouble(self) -> str | None:
        """Why the first of them that cannot commit now cannot; None when all can."""
        return next((lane.trouble for lane in self.all if lane.trouble is not None), None)

    @property
    def stopped(self) -> str | None:
        """Why the first of them that has stopped for good has; None when none has."""
        return next((lane.stopped for lane in self.all if lane.stopped is not None), None)

    @property
    def depth(self) -> int:
        """Commands that wait."""
        return sum(lane.depth for lane in self.all)

    @property
    def commits(self) -> int:
        return sum(lane.commits for lane in self.all)

    @property
    def timings(self) -> Timings:
        """What they did, summed; the longest of all of them."""
        total = Timings()
        for lane in self.all:
            for name, value in msgspec.structs.asdict(lane.timings).items():
                join = max if name.startswith("longest") else sum
                setattr(total, name, join((getattr(total, name), value)))
        return total


class _Everybody:
    """Answers when every lane has: with the first error there was, else with the last reply."""

    def __init__(self, answer: Answer, count: int) -> None:
        self._answer, self._left = answer, count
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def ask(self, lane: Lane, command: c.Command, loop: asyncio.AbstractEventLoop | None) -> None:
        try:
            lane.submit(command, self, loop)
        except Unavailable as refusal:
            self.set_exception(refusal)

    def done(self) -> bool:
        return self._answer.done()

    def set_result(self, result: Any, /) -> None:
        self._count(None, result)

    def set_exception(self, exception: BaseException, /) -> None:
        self._count(exception, None)

    def _count(self, error: BaseException | None, result: Any) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            last = self._left == 0
        if last and self._error is not None:
            self._answer.set_exception(self._error)
        elif last:
            self._answer.set_result(result)

"""What a lane could not decide yet, in the order in which it came (source: KERNEL, multi-run rule).

No command is decided before an older one that names the same run in the same way, by number or by scope and id: it
waits with that, or goes where that went. Only a batch that has loaded a run knows that both ways lead to it.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import Any, TypeAlias

from msgspec import Struct

from stepwell.engine.answers import Item, Passed, give
from stepwell.kernel.calls import Busy, Postponed
from stepwell.kernel.needs import Names, named
from stepwell.model.errors import Unavailable

Pairs: TypeAlias = list[tuple[Item, Any]]


class Passage:
    """The way into a lane for what others pass on to it. From any thread."""

    def __init__(self, submit: Callable[..., None]) -> None:
        self._submit = submit
        self._under_way: dict[int | tuple[str, str], int] = {}  # by run: how many that name it are not answered yet
        self._lock = Lock()

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def has(self, names: Names) -> bool:
        """Whether something that has one of these names is under way there."""
        return any(name in self._under_way for name in names)

    def take(self, item: Item, names: Names) -> None:
        """Passes a command on, or answers it if that lane takes no more."""
        command, answer, loop = item
        self._count(names, 1)
        passed = Passed(answer, partial(self._count, names, -1))
        try:
            self._submit(command, passed, loop)
        except Unavailable as refusal:
            give([((command, passed, loop), refusal)])

    def _count(self, names: Names, more: int) -> None:
        with self._lock:
            for name in names:
                self._under_way[name] = self._under_way.get(name, 0) + more
                if not self._under_way[name]:
                    del self._under_way[name]


class Waiting(Struct, frozen=True, gc=False):
    """A command with its place in the order and the runs that it names."""

    no: int
    item: Item
    names: Names


class Backlog:
    """`passage`: where what calls mutations goes, None: it stays here. The lane's own thread fills it."""

    def __init__(self, passage: Passage | None) -> None:
        self._passage = passage
        self._waiting: list[Waiting] = []
        self._tried: dict[int, Waiting] = {}  # what is in the batch under way, by its answer
        self._busy: set[int | tuple[str, str]] = set()  # what waits for runs that could not be had when last tried
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def pop(self) -> Item:
        """Takes one out, to be answered. Raises IndexError when there is none."""
        return self._waiting.pop().item

    def take(self, queue: deque[Item], limit: int) -> list[Item]:
        """The next batch: of what waits what has nothing older to wait for, and then what is new.

        Of those that name a run which others had, one tries whether they still do.
        """
        if not self._waiting and not self._passage:
            return [queue.popleft() for _ in range(min(len(queue), limit))]
        old, self._waiting = self._waiting, []
        behind: set[int | tuple[str, str]] = set()
        batch = self._free(old, (limit + 1) // 2, behind)
        new = [self._numbered(queue.popleft()) for _ in range(min(len(queue), max(1, limit - len(batch))))]
        return batch + self._free(new, len(new), behind)

    def _free(self, those: list[Waiting], room: int, behind: set[int | tuple[str, str]]) -> list[Item]:
        """As many as have room and do not name what somebody before them names who waits: `behind`."""
        free: list[Item] = []
        for one in those:
            if len(free) >= room or not behind.isdisjoint(one.names):
                behind |= one.names
                self._waiting.append(one)
            elif self._passage is not None and self._passage.has(one.names):
                self._passage.take(one.item, one.names)
            else:
                behind |= one.names & self._busy
                self._tried[id(one.item[1])] = one
                free.append(one.item)
        return free

    def _numbered(self, item: Item) -> Waiting:
        self._last += 1
        return Waiting(self._last, item, named(item[0]))

    def settle(self, replied: Pairs) -> Pairs:
        """Keeps what of a batch was postponed, or passes it on; gives back what is to be answered."""
        tried, self._tried = self._tried, {}
        if not tried and not any(isinstance(reply, Postponed) for _, reply in replied):
            return replied
        behind: set[int | tuple[str, str]] = set()
        answered: Pairs = []
        for item, reply in replied:
            one = tried.get(id(item[1]))
            if not isinstance(reply, Postponed):
                answered.append((item, reply))
                self._busy.difference_update(one.names if one is not None else ())
                continue
            one = one or self._numbered(item)
            if self._goes_on(one, isinstance(reply, Busy), behind):
                continue
            behind |= one.names
            self._waiting.append(one)
        busy = self._busy | behind
        self._busy = {name for one in self._waiting for name in one.names if name in busy}
        self._waiting.sort(key=attrgetter("no"))
        return answered

    def _goes_on(self, one: Waiting, busy: bool, behind: set[int | tuple[str, str]]) -> bool:
        """Whether it is passed on: it calls a mutation, or is behind what does."""
        passage = self._passage
        if passage is None or not behind.isdisjoint(one.names) or (busy and not passage.has(one.names)):
            return False
        passage.take(one.item, one.names)
        return True

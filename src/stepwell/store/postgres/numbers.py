"""Internal numbers of runs and events, from sequences: none is given twice; dense while one lane takes them."""

from collections.abc import Sequence

from stepwell.store.port import Retry
from stepwell.store.postgres.exchange import Exchange, Statement
from stepwell.store.postgres.sql import sql

TRIES = 10


class Numbers:
    """What a lane took and has not used: a batch that was rolled back gives its numbers to the next one.

    Lists go by numbers, the newest first. So what a batch left over is used unless a lane took newer ones.
    """

    def __init__(self) -> None:
        self._free: dict[str, tuple[int, int]] = {}  # by kind: the next, and the first that is not ours
        self._promised: dict[str, int] = {}  # by kind: how many of them the batch under way may use
        self._left: set[str] = set()  # kinds of which a batch that is over used less than it took

    def begin(self) -> None:
        """Another batch, or the same one again."""
        self._promised.clear()

    def missing(self, kind: str, count: int) -> int:
        """How many more it takes for a batch that wants so many."""
        first, end = self._free.get(kind, (0, 0))
        return max(0, count - (end - first))

    def more(self, kind: str, count: int) -> Statement:
        """The statement that takes so many."""
        return sql("lane/numbers"), (f"{kind}_no", count)

    def add(self, kind: str, taken: Sequence[int]) -> None:
        """What the statement brought; they stay unused where they are not in a row with those that are there."""
        first, end = self._free.get(kind, (0, 0))
        if taken and taken[-1] - taken[0] == len(taken) - 1 and (first == end or taken[0] == end):
            self._free[kind] = (taken[0] if first == end else first, taken[-1] + 1)

    def take(self, link: Exchange, kind: str, count: int) -> int:
        """The first of `count` numbers in a row, after those that this batch was promised; `used` says which it used.

        Raises Retry where they cannot be in a row with those: then they are for when the batch is made again.
        """
        if kind in self._left:
            self._left.remove(kind)
            self._drop_overtaken(link, kind)
        promised = self._promised.get(kind, 0)
        first, end = before = self._free.get(kind, (0, 0))
        wanted = promised + count
        if end - first < wanted:
            first, end = self._more(link, kind, wanted - (end - first), wanted, first, end)
            self._free[kind] = (first, end)
            if promised and first != before[0]:
                raise Retry(f"other lanes took the {kind} numbers that come next")
        self._promised[kind] = wanted
        return first + promised

    def _drop_overtaken(self, link: Exchange, kind: str) -> None:
        _, end = self._free[kind]
        if link.rows(sql("lane/last_number"), (f"{kind}_no",))[0][0] >= end:
            self._free[kind] = (end, end)

    def _more(self, link: Exchange, kind: str, missing: int, count: int, first: int, end: int) -> tuple[int, int]:
        """A longer row of numbers. Another lane may take one in the middle: then those around it stay unused."""
        for _ in range(TRIES):
            rows = link.rows(*self.more(kind, missing))
            start, last = rows[0][0], rows[-1][0]
            if last - start == missing - 1:
                if start == end and missing < count:
                    return first, last + 1
                if missing == count:
                    return start, last + 1
            missing, first, end = count, 0, 0
        raise Retry(f"other lanes took every {kind} number that was wanted")

    def used(self, kind: str, following: int) -> None:
        """Everything below `following` is in rows that are committed."""
        first, end = self._free.get(kind, (0, 0))
        self._free[kind] = (max(first, following), max(end, following))

    def leave(self) -> None:
        """The batch is over, and is not made again."""
        self._left = {kind for kind, (first, end) in self._free.items() if first < end}

    def forget(self) -> None:
        """Nobody knows what was used."""
        self._free.clear()
        self._left.clear()

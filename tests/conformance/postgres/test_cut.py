"""A connection that is cut anywhere in a batch, and at each byte of its commit (source: KERNEL, lost commit answer)."""

import itertools
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.model import commands as c
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, assert_lawful, postgres
from tests.support.proxy import SOCKET, Proxy, behind

#: With nothing prepared, a flush brings the text of its statement.
FLUSH, WORD = b"with act1 as", b"commit\x00"
#: What goes before the word need not be cut at each byte; numbers have not always as many digits.
STRIDE, DIGITS = 200, 8
#: How many bytes further each cut of a whole batch is: a number that meets messages anywhere.
STEP = 397


class Wire(Proxy):
    """On a socket of its own. Armed, it passes so many bytes of the next flush, commit and answer, and is cut; with
    `now`, so many bytes of what comes next.

    `word`: where the commit's word ended; `passed`: how many bytes there were.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._left, self._committing = -1, False
        self.word = self.passed = 0
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / SOCKET))
        listener.listen()
        super().__init__(url, listener)

    def arm(self, count: int, *, now: bool = False) -> None:
        self._committing, self._left, self.passed = now, count, 0

    def disarm(self) -> None:
        self._left = -1

    @property
    def armed(self) -> bool:
        return self._left >= 0

    def passes(self, data: bytes, other: socket.socket, asks: bool) -> bool:
        self._committing |= self.armed and asks and FLUSH in data
        if not (self.armed and self._committing):
            return super().passes(data, other, asks)
        if asks and WORD in data:
            self.word = self.passed + data.index(WORD) + len(WORD)
        self.passed += len(data)
        passed, self._left = data[: self._left], self._left - len(data)
        other.sendall(passed)
        return self.armed


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the name of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="sw-") as name:
        yield Path(name)


def opened(folder: Path) -> tuple[Wire, PostgresStore, PostgresStore]:
    """A wire, a store behind it, and the same store without it."""
    direct = postgres.address(folder)
    wire = Wire(direct, folder)
    store = PostgresStore(behind(direct, host=str(folder)), pooled=True)
    store.migrate()
    return wire, store, PostgresStore(direct)


def test_wherever_a_batch_is_cut_it_is_done_once(folder: Path) -> None:
    wire, store, direct = opened(folder)
    bench, cuts = Bench(store), 0
    bench.start("r")
    for count in itertools.count(0, STEP):
        bench.commits.clear()
        wire.arm(count, now=True)
        signaled = bench.do(c.Signal("r", "s", dedup=str(count)))
        whole = wire.armed
        wire.disarm()
        assert signaled.seq == cuts + 2, "once"
        assert [committed.runs for committed in bench.commits] == [{1}]
        if whole:
            break
        cuts += 1
    assert cuts > 5
    assert bench.lane.trouble is None
    bench.close()
    wire.close()
    assert_lawful(direct)


def test_whatever_byte_is_the_last_the_reply_is_true_and_nothing_is_done_twice(folder: Path) -> None:
    wire, store, direct = opened(folder)
    points: list[str] = []
    bench, happened = Bench(store, fault=points.append), list[tuple[int, int, bool]]()
    wire.arm(1 << 20)
    bench.start("whole")
    bench.commits.clear()
    first, last = wire.word - len(WORD), wire.passed - DIGITS
    for count in (*range(0, first, STRIDE), *range(first, last)):
        points.clear()
        wire.arm(count)
        started = bench.start(f"r{count}")
        assert started.created
        assert not wire.armed, f"it was cut after {count} of {wire.passed}"
        happened.append((count, wire.word, points.count("begun") == 1))
        assert bench.commits.pop().runs == {started.run_no}, "who waits is told"
        assert not bench.commits, "once"
        assert not bench.start(f"r{count}").created, "once"
    did = [count for count, _, once in happened if once]
    assert all(count >= word for count, word, once in happened if once), "not before the server has the whole word"
    assert did == list(range(did[0], last)), "and always from then on"
    bench.close()
    wire.close()
    assert_lawful(direct)

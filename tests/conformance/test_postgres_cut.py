"""A connection that is cut at each byte of a commit and of its answer (source: KERNEL, lost commit answer)."""

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, assert_lawful, postgres

COMMIT = b"Q\x00\x00\x00\x0bcommit\x00"
ANSWER = b"C\x00\x00\x00\x0bCOMMIT\x00Z\x00\x00\x00\x05I"
SOCKET = ".s.PGSQL.5432"


class Wire:
    """A proxy on a socket of its own. Armed, it passes so many bytes of the next commit and its answer, and is cut."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server, self._left = server, -1
        self._committing = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        self._ends = [self._listener]
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *given: object) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()

    def arm(self, count: int) -> None:
        self._committing, self._left = False, count

    @property
    def armed(self) -> bool:
        return self._left >= 0

    def close(self) -> None:
        for end in self._ends:
            _shut(end)
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._ends += (client, server)
                server.connect(self._server)
                self._begin(self._pass, client, server, True)
                self._begin(self._pass, server, client, False)

    def _pass(self, one: socket.socket, other: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                self._committing |= self.armed and asks and data == COMMIT
                if not (self.armed and self._committing):
                    other.sendall(data)
                    continue
                passed, self._left = data[: self._left], self._left - len(data)
                other.sendall(passed)
                if not self.armed:
                    break
        for end in (one, other):
            _shut(end)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the name of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="sw-") as name:
        yield Path(name)


def test_whatever_byte_is_the_last_the_reply_is_true_and_nothing_is_done_twice(folder: Path) -> None:
    direct = postgres.address(folder)
    parts = conninfo_to_dict(direct)
    wire = Wire(f"{parts['host']}/{SOCKET}", folder)
    store = PostgresStore(make_conninfo("", **{**parts, "host": str(folder)}))
    store.migrate()
    points: list[str] = []
    bench, happened = Bench(store, fault=points.append), []
    for count in range(len(COMMIT) + len(ANSWER)):
        points.clear()
        wire.arm(count)
        started = bench.start(f"r{count}")
        assert started.created
        assert not wire.armed, "it was cut"
        happened.append(points.count("begun") == 1)
        assert bench.commits.pop().runs == {started.run_no}, "who waits is told"
        assert not bench.commits, "once"
        assert not bench.start(f"r{count}").created, "once"
    first = happened.index(True)
    assert first >= len(COMMIT), "before the server has the whole word, it cannot have committed"
    assert all(happened[first:])
    bench.close()
    wire.close()
    assert_lawful(PostgresStore(direct))

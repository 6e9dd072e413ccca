"""Who closes does not wait for a server that has stopped to answer, also while a connection is being opened."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stepwell.engine.engine import Engine
from stepwell.store.postgres.store import PostgresStore
from tests.support import postgres

SOCKET = ".s.PGSQL.5432"
#: What comes first on a connection, and what comes first when it is open.
STARTS, SETS = b"user\0", b"plan_cache_mode"
SOON_S = 3


class Slow:
    """A server on TCP that takes connections, and from a word on answers nothing until it is `free`."""

    def __init__(self, server: str, word: bytes) -> None:
        self._server, self._word = server, word
        self.held, self.free = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends = [self._listener]
        self.left = threading.Event()
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *given: object) -> None:
        threading.Thread(target=work, args=given, daemon=True).start()

    def close(self) -> None:
        self.free.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._ends += (client, server)
                server.connect(self._server)
                self._begin(self._ask, client, server)
                self._begin(self._answer, server, client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if self._word in data:
                    self.held.set()
                    self.free.wait()
                server.sendall(data)
        self.left.set()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)


@contextlib.contextmanager
def behind(folder: Path, word: bytes) -> Iterator[tuple[Slow, PostgresStore]]:
    """A slow server, and the store behind it."""
    parts = conninfo_to_dict(postgres.address(folder))
    with contextlib.closing(Slow(f"{parts['host']}/{SOCKET}", word)) as slow:
        there = {**parts, "host": "127.0.0.1", "port": slow.port, "sslmode": "disable"}
        yield slow, PostgresStore(make_conninfo("", **there))


@pytest.mark.parametrize("word", [STARTS, SETS], ids=["starting", "open"])
def test_a_connection_that_is_being_opened_is_cut(tmp_path: Path, word: bytes) -> None:
    with behind(tmp_path, word) as (slow, far), ThreadPoolExecutor(1) as pool:
        opening = pool.submit(far.connect)
        assert slow.held.wait(SOON_S)
        far.cut()
        if word == STARTS:  # the driver has it not yet: it gives up after its own time, or gets it now
            slow.free.set()
        try:
            with pytest.raises(psycopg.OperationalError):
                opening.result(SOON_S)
        finally:
            slow.free.set()
        assert slow.left.wait(SOON_S), "it is not left open"


def test_who_breaks_off_the_opening_of_an_engine_does_not_wait_for_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.engine.engine.CLOSE_S", 0.1)

    async def main(slow: Slow, far: PostgresStore) -> None:
        opening = asyncio.create_task(Engine(far).__aenter__())
        assert await asyncio.to_thread(slow.held.wait, SOON_S)
        opening.cancel()
        done, _ = await asyncio.wait([opening], timeout=SOON_S)
        slow.free.set()
        assert done
        assert opening.cancelled()

    with behind(tmp_path, SETS) as (slow, far):
        asyncio.run(main(slow, far))

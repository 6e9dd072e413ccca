"""A proxy between PostgreSQL and its clients: what goes through it can be held up or cut."""

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: What PostgreSQL calls its socket in a folder.
SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes all, in both directions, until it is closed. `left`: a client has gone."""

    def __init__(self, url: str, listener: socket.socket) -> None:
        self._server = f"{conninfo_to_dict(url)['host']}/{SOCKET}"
        self._listener, self.left = listener, threading.Event()
        self._ends = [listener]
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def passes(self, data: bytes, other: socket.socket, asks: bool) -> bool:
        """Gives the other side what came, of a client that `asks` or of the server. False cuts the connection."""
        other.sendall(data)
        return True

    def close(self) -> None:
        for end in self._ends:
            _shut(end)
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _begin(self, work: Callable[..., None], *given: object) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()

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
            while (data := one.recv(65_536)) and self.passes(data, other, asks):
                pass
        for end in (one, other):
            _shut(end)
        if asks:
            self.left.set()


class TcpProxy(Proxy):
    """On a port of this machine. `url`: the same database behind it."""

    def __init__(self, url: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = _through(url, listener.getsockname()[1])
        super().__init__(url, listener)


class Slow(TcpProxy):
    """It takes connections, and from a word on passes nothing until it is `free`."""

    def __init__(self, url: str, word: bytes) -> None:
        self._word = word
        self.held, self.free = threading.Event(), threading.Event()
        super().__init__(url)

    def close(self) -> None:
        self.free.set()
        super().close()

    def passes(self, data: bytes, other: socket.socket, asks: bool) -> bool:
        if asks and self._word in data:
            self.held.set()
            self.free.wait()
        return super().passes(data, other, asks)


def behind(url: str, **there: str | int) -> str:
    """The address of the same database at another host or port."""
    return make_conninfo("", **{**conninfo_to_dict(url), **there})


def _through(url: str, port: int) -> str:
    """The same URL, with another end of the line."""
    parts = urlsplit(url)
    options = {name: value for name, value in parse_qsl(parts.query) if name != "host"} | {"sslmode": "disable"}
    who = parts.netloc.rpartition("@")[0]
    return f"postgresql://{who}@127.0.0.1:{port}{parts.path}?{urlencode(options, quote_via=quote)}"


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

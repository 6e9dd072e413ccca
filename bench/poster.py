"""A client that is cheap: raw sockets, kept alive, one request under way on each. Started by `http` in its own process.

`python -m bench.poster PORT CONNECTIONS SECONDS PREFIX|-`: posts events with ids that begin with PREFIX, or with `-`
asks for /healthz, which is the floor of the HTTP stack. Signs if BENCH_SECRET is set. Says as JSON how many were
answered and how fast.
"""

import hmac
import json
import os
import selectors
import socket
import sys
import time

from bench.rig import PAYLOAD

Sockets = dict[socket.socket, "Connection"]


class Connection:
    """One socket and the request that is under way on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at, self._received = 0.0, b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def status(self) -> int | None:
        """The status of the answer once all of it is here."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed a connection")
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:"))
        if len(body) < length:
            return None
        self._received = b""
        return int(head[9:12])


def request(prefix: str, number: int, secret: bytes) -> bytes:
    """The bytes of the next request."""
    if prefix == "-":
        return b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = f'{{"id":"{prefix}-{number}","type":"bench","payload":{PAYLOAD}}}'.encode()
    head = (
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{signed(body, secret) if secret else ''}\r\n"
    )
    return head.encode() + body


def signed(body: bytes, secret: bytes) -> str:
    """The headers of a signature with a timestamp."""
    now = int(time.time())
    digest = hmac.new(secret, f"{now}.POST./events.".encode() + body, "sha256").hexdigest()
    return f"x-flow-timestamp: {now}\r\nx-flow-signature-256: sha256={digest}\r\n"


def post(port: int, count: int, seconds: float, prefix: str, secret: bytes) -> dict[str, object]:
    """Each connection sends its next request when the last one is answered."""
    selector = selectors.DefaultSelector()
    took: list[float] = []
    statuses: dict[int, int] = {}
    for number in range(count):
        connection = Connection(port)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(request(prefix, number, secret))
    began = now = time.perf_counter()
    sent, open_ = count, count
    while open_:
        for key, _ in selector.select():
            connection = key.data
            status = connection.status()
            if status is None:
                continue
            now = time.perf_counter()
            took.append(now - connection.sent_at)
            statuses[status] = statuses.get(status, 0) + 1
            if now - began < seconds:
                connection.send(request(prefix, sent, secret))
                sent += 1
            else:
                selector.unregister(connection.socket)
                connection.socket.close()
                open_ -= 1
    return {"rate": len(took) / (now - began), "took": took, "statuses": statuses}


if __name__ == "__main__":
    secret = os.environ.get("BENCH_SECRET", "").encode()
    print(json.dumps(post(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], secret)))

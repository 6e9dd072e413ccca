"""Bounds of a connection: heads, trailers, bodies and time. What is no HTTP gets JSON, too."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.server.support import OK, PATIENCE_S, Server, as_bytes, flow, serving

POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\n"


EVENT = b'{"id":"trailed","type":"x"}'


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives half a second for a head or a body, and eight connections; nobody works there."""
    cwd = tmp_path_factory.mktemp("hasty")
    flow(cwd)
    options = {"head_s": 0.5, "body_s": 0.5, "stalled_s": 0.5, "connections": 8}
    with serving(cwd, options=options, slots=0) as running:
        yield running


def told(server: Server, data: bytes, *, patience_s: float = PATIENCE_S) -> bytes:
    """All that comes back until the server closes; it must."""
    with closing(socket.create_connection((server.host, server.port), timeout=patience_s)) as sock:
        sock.sendall(data)
        got = b""
        with suppress(ConnectionError):
            while piece := sock.recv(65_536):
                got += piece
        return got


def answer_of(sock: socket.socket) -> bytes:
    """One answer in JSON, whole."""
    got = b""
    while not got.endswith(b"}"):
        piece = sock.recv(65_536)
        assert piece, got
        got += piece
    return got


def is_error(got: bytes, status: int, code: str) -> bool:
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head, got
    return head.startswith(b"HTTP/1.1 %d " % status) and f'"code":"{code}"'.encode() in body


@pytest.mark.parametrize("data", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_come_is_not_waited_for(hasty: Server, data: bytes) -> None:
    """Slow-loris: uvicorn itself waits for ever."""
    started = time.monotonic()
    assert is_error(told(hasty, data), 408, "malformed")
    assert 0.3 < time.monotonic() - started < 3


def test_a_head_that_drips_is_not_waited_for(hasty: Server) -> None:
    with closing(socket.create_connection((hasty.host, hasty.port), timeout=5)) as sock:
        started = time.monotonic()
        sock.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while time.monotonic() - started < 3:
                sock.sendall(b"a: b\r\n")
                time.sleep(0.05)
    assert time.monotonic() - started < 2.5


def test_a_second_request_is_not_waited_for_either(hasty: Server) -> None:
    with closing(socket.create_connection((hasty.host, hasty.port), timeout=5)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert b" 200 " in answer_of(sock)
        sock.sendall(b"GET /heal")
        assert is_error(answer_of(sock), 408, "malformed")
        assert sock.recv(4_096) == b""


@pytest.mark.parametrize("more", [b"\r\n", b"GET /healthz HT"])
def test_what_comes_after_a_request_does_not_cut_its_answer_short(hasty: Server, more: bytes) -> None:
    """Old clients send a line end after a body, and wait for an answer longer than a head may take."""
    (run_id,) = hasty.send(f"more {more!r}")["runIds"]
    with closing(socket.create_connection((hasty.host, hasty.port), timeout=5)) as sock:
        sock.sendall(f"GET /runs/{run_id}?wait=1.2 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        hasty.until_waits(1)
        sock.sendall(more)
        got = answer_of(sock)
        assert got.startswith(b"HTTP/1.1 200 "), got
        assert b'"ended":false' in got


def test_a_body_in_a_pipeline_has_its_own_time(tmp_path: Path) -> None:
    """The answer before it is not the one that it was refused with."""
    flow(tmp_path)
    with serving(tmp_path, options={"linger_s": 0.2}, slots=0) as server:
        (run_id,) = server.send("e")["runIds"]
        first = f"GET /runs/{run_id}?wait=0.3 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with closing(socket.create_connection((server.host, server.port), timeout=5)) as sock:
            sock.sendall(first + POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT[:5])
            assert b'"ended":false' in answer_of(sock)
            time.sleep(0.6)  # nothing happens in this time, and that is what is looked at
            sock.sendall(EVENT[5:])
            assert answer_of(sock).startswith(b"HTTP/1.1 202 ")


def test_a_refused_body_is_not_taken_for_long(tmp_path: Path) -> None:
    with (
        serving(tmp_path, options={"linger_s": 0.2}, slots=0) as server,
        closing(socket.create_connection((server.host, server.port), timeout=3)) as sock,
    ):
        sock.sendall(POST + b"Content-Length: 999999999\r\n\r\n")
        assert is_error(answer_of(sock), 413, "too_large")
        with suppress(ConnectionError):
            assert sock.recv(1) == b""


@pytest.mark.parametrize("head", [b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{\r\n"])
def test_a_body_that_does_not_come_is_not_waited_for(hasty: Server, head: bytes) -> None:
    with closing(socket.create_connection((hasty.host, hasty.port), timeout=5)) as sock:
        started = time.monotonic()
        sock.sendall(POST + head)
        assert is_error(answer_of(sock), 400, "malformed")
        assert 0.3 < time.monotonic() - started < 3


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 30_000 + b"\r\n",
        b"GET /" + b"x" * 5_000_000,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 5_000_000,
    ],
    ids=range(5),
)
def test_a_head_that_is_too_large_is_refused(server: Server, data: bytes) -> None:
    with suppress(ConnectionError), closing(socket.create_connection((server.host, server.port), timeout=5)) as sock:
        sock.sendall(data)
        assert is_error(answer_of(sock), 431, "too_large")
    assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("trailer", [b"Content-Type: text/plain", b"Host: evil.example", b"X-Flow-Timestamp: 1"])
def test_trailers_are_no_headers(server: Server, trailer: bytes) -> None:
    """They come after what was checked."""
    chunks = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(EVENT), EVENT, trailer)
    got = server.raw(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks, patience_s=5)
    assert got.startswith(b"HTTP/1.1 202 "), got


def test_trailers_without_end_are_cut_off(server: Server) -> None:
    with closing(socket.create_connection((server.host, server.port), timeout=PATIENCE_S)) as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 50_000_000:
                sock.sendall(b"trailer: " + b"x" * 10_000 + b"\r\n")
                sent += 10_000
        assert sent < 20_000_000


def test_a_chunked_body_of_single_bytes_is_no_attack(server: Server) -> None:
    body = as_bytes({"id": "single bytes", "type": "x", "payload": "x" * 30_000})
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    got = server.raw(
        POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks + b"0\r\n\r\n", patience_s=5
    )
    assert got.startswith(b"HTTP/1.1 202 ")


def test_a_length_over_the_bound_is_refused_before_anything_is_read(server: Server) -> None:
    with closing(socket.create_connection((server.host, server.port), timeout=5)) as sock:
        sock.sendall(POST + b"Content-Length: 999999999999\r\n\r\n")
        assert is_error(answer_of(sock), 413, "too_large")


def test_who_waits_for_continue_is_told_no_first(server: Server) -> None:
    """With `Expect: 100-continue` a body that would be refused is never sent."""
    with closing(socket.create_connection((server.host, server.port), timeout=5)) as sock:
        sock.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert is_error(answer_of(sock), 413, "too_large")


def test_one_connection_too_many_is_told(hasty: Server) -> None:
    with ExitStack() as held:
        for _ in range(8):
            sock = held.enter_context(socket.create_connection((hasty.host, hasty.port), timeout=5))
            sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert b" 200 " in answer_of(sock)
        assert is_error(told(hasty, b""), 503, "unavailable")
    assert hasty.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"],
)
def test_what_is_no_http_is_told_so_as_json(server: Server, data: bytes) -> None:
    assert is_error(told(server, data), 400, "malformed")


def test_what_a_client_does_wrong_is_not_in_the_log(server: Server) -> None:
    """Anybody could fill the disk with it."""
    before = server.log.read_text()
    assert is_error(told(server, b"nonsense\r\n\r\n"), 400, "malformed")
    assert server.log.read_text() == before


def reader_of(server: Server, run_id: str) -> socket.socket:
    """A client that has asked for a run, and has room for little of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.settimeout(PATIENCE_S)
    sock.connect((server.host, server.port))
    sock.sendall(f"GET /runs/{run_id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return sock


def test_who_reads_slowly_gets_all_and_who_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    """uvicorn says when its buffer is full and when it is empty again, and nothing in between."""
    flow(tmp_path, steps={"go": f"yes 12345678 | head -c 4000000; echo; {OK}"})
    with serving(tmp_path, options={"stalled_s": 0.4}) as server:
        (run_id,) = server.send("e")["runIds"]
        whole = len(server.ended(run_id)["stdout"])
        with closing(reader_of(server, run_id)) as slow, closing(reader_of(server, run_id)) as never:
            got, until = 0, time.monotonic() + 1.5
            while piece := slow.recv(16_384):
                got += len(piece)
                if time.monotonic() < until:
                    time.sleep(0.02)
            assert got > 2 * whole  # output, and the same as stdout
            assert sum(map(len, iter(partial(never.recv, 1 << 20), b""))) < whole


def test_a_pipeline_is_answered_in_order(server: Server) -> None:
    asks = b"".join(b"GET /events/p%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n for n in range(50))
    got = server.raw(asks + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", patience_s=5)
    assert [got.find(b'event not found: p%d"' % n) for n in range(50)] == sorted(
        got.find(b'event not found: p%d"' % n) for n in range(50)
    )
    assert got.count(b"HTTP/1.1 404 ") == 50
    assert got.endswith(b'{"ok":true}')

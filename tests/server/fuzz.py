"""Requests of random bytes around real ones, from a seed; what comes back for them, and what may not."""

import contextlib
import hmac
import json
import random
import socket
import time
from collections import Counter
from pathlib import Path

from msgspec import Struct

from stepwell.server.routes import OPERATIONS
from tests.server.support import Server

KNOWN = {200, 202, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 503}
DEADLINE_S = 5.0
METHODS = [
    b"GET", b"GET", b"POST", b"POST", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"CONNECT",
    b"get",
]  # fmt: skip
IDS = [
    b"e1", b"%2F", b"a%2Fb", b"%", b"%zz", b"%ff", b"%00", b"", b"..", b"//", b"x" * 300, b"%F0%9F%90%AA",
    b";,:@&=+$",
]  # fmt: skip
QUERIES = [
    b"limit=", b"cursor=", b"type=", b"status=", b"eventId=", b"needsAttention=", b"after=", b"stream=",
    b"wait=0.0", b"%=&",
]  # fmt: skip
VALUES = [
    b"", b"0", b"1", b"-1", b"50", b"9999999999999999999", b"x", b"true", b"%ff", b"%", b"+", b"a&a", b"%00",
    b"\x7f",
]  # fmt: skip
HEADERS = [
    b"content-type: application/json", b"content-type: text/plain", b"content-type: \xff", b"content-encoding: gzip",
    b"content-encoding: identity", b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked",
    b"expect: 100-continue",
    b"content-length: 0", b"content-length: 7", b"content-length: -1", b"content-length: 99999999999999999999999",
    b"host: evil.example", b"host: ", b"origin: null", b"origin: https://e.example", b"x-flow-timestamp: 1",
    b"x-flow-signature-256: sha256=", b"authorization: Bearer ", b"authorization: Bearer \xff", b"x-api-key: ",
    b"connection: upgrade", b"upgrade: websocket", b"upgrade: h2c", b"connection: close", b"connection: keep-alive",
    b"accept: text/event-stream", b"accept: */*;q=\xff", b"last-event-id: 1", b"last-event-id: x", b"range: bytes=0-1",
    b"x: " + b"y" * 3_000, b"cookie: \x01", b": empty", b"no colon", b" folded: x", b"sec-websocket-version: 13",
]  # fmt: skip
BODIES = [
    b"", b"{}", b"[]", b"null", b'{"id":"e1","type":"x"}', b'{"id":"e2","type":"x","payload":[1e309]}', b"\xff\xfe\x00",
    b'{"wait":false}', b'{"steps":[""]}', b'{"reason":"r","terminate":true}', b"{" * 5_000, b'"' + b"x" * 20_000,
    b'{"id":"\\ud800","type":"x"}', b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n",
    b'{"id":"e1","type":"x","id":"e2"}',
]  # fmt: skip

GOOD = b'{"id":"e1","type":"x"}'


class Sent(Struct):
    """One request: its bytes, and whether it proves who sends it."""

    data: bytes
    proven: bool


def requests(seed: int, count: int, secret: str | None) -> list[Sent]:
    """Requests from a seed: always the same ones."""
    dice = random.Random(seed)
    return [_request(dice, secret) for _ in range(count)]


def _request(dice: random.Random, secret: str | None) -> Sent:
    method, body = dice.choice(METHODS), dice.choice(BODIES + [GOOD] * 6)
    path = dice.choice(OPERATIONS).path.encode().replace(b"{id}", dice.choice(IDS))
    if dice.random() < 0.3:
        path += b"?" + b"&".join(dice.choice(QUERIES) + dice.choice(VALUES) for _ in range(dice.randint(1, 4)))
    headers = [b"Host: localhost"] * (dice.random() < 0.95) + dice.sample(
        HEADERS, dice.choice([0, 0, 0, 0, 0, 1, 1, 2, 5])
    )
    if dice.random() < 0.9:
        headers.append(b"content-length: %d" % len(body))
    proven = secret is not None and dice.random() < 0.5
    if secret is not None and proven:
        sign = hmac.new(secret.encode(), body, "sha256").hexdigest().encode()
        headers += [b"x-flow-signature-256: sha256=" + sign, b"authorization: Bearer " + secret.encode()]
    dice.shuffle(headers)
    head = method + b" " + path + b" HTTP/1.1\r\n" + b"".join(one + b"\r\n" for one in headers) + b"\r\n"
    return Sent(_mangled(dice, head + body) if dice.random() < 0.15 else head + body, proven)


def _mangled(dice: random.Random, data: bytes) -> bytes:
    """Some bytes changed, doubled, or cut off."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(found)) if found else 0
        what = dice.randrange(4)
        if what == 0:
            found[at : at + 1] = bytes([dice.randrange(256)])
        elif what == 1:
            del found[at:]
        elif what == 2:
            found[at:at] = found[at : at + dice.randint(1, 50)]
        else:
            found[at:at] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 20)))
    return bytes(found)


def fuzz(server: Server, sent: list[Sent], *, secured: bool) -> Counter[int]:
    """Sends them all, one a connection; answers how often each status came. Raises on anything that must not be."""
    statuses: Counter[int] = Counter()
    for one in sent:
        started = time.monotonic()
        got = answer(server, one.data)
        assert time.monotonic() - started < DEADLINE_S, one
        status = judge(got, one)
        if secured and not one.proven:
            assert status in (0, 200, 204) or status >= 400, (one, got)
            assert b'"events"' not in got, one
            assert b'"runs"' not in got, one
        statuses[status] += 1
    return statuses


def judge(got: bytes, sent: Sent) -> int:
    """The status of an answer, 0 for none at all: that is only for what was no request."""
    if not got:
        return 0
    head, _, body = got.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status in KNOWN, (sent, got[:1_000])
    assert b"Traceback" not in got, sent
    assert b"site-packages" not in got, sent
    if status >= 400 and body:
        said = json.loads(body)
        assert said["error"], sent
        assert said["code"], sent
        assert said["hint"], sent
    return status


def answer(server: Server, data: bytes) -> bytes:
    """The first whole answer but 100 Continue; less when the server closes."""
    got = b""
    with contextlib.closing(socket.create_connection((server.host, server.port), timeout=DEADLINE_S)) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        with contextlib.suppress(ConnectionError):
            while not _whole(got, data) and (piece := sock.recv(65_536)):
                got = (got + piece).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    return got


def _whole(got: bytes, data: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        return body.endswith(b"0\r\n\r\n") or data.startswith(b"HEAD")
    return len(body) >= int(fields.get(b"content-length", 0)) or data.startswith(b"HEAD")


def resident_bytes(server: Server) -> int:
    """How much memory the server has now."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4_096

"""Who gets in: signatures, timestamps, tokens, hosts, origins (source: spec codex-flows 4.7, faults 21 and 22)."""

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stepwell.model.errors import Forbidden, Invalid, Unauthorized
from stepwell.server import auth
from stepwell.server.options import ServerOptions
from stepwell.server.routes import OPERATIONS
from tests.server.support import Server, as_bytes, flow, serving

NEW, OLD, TOKEN = "the new secret", "the old secret", "for reading"
BODY = b'{"id":"a","type":"demo"}'
GOOD = ServerOptions(secrets=(NEW, OLD), token=TOKEN)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two secrets and a token."""
    cwd = tmp_path_factory.mktemp("locked")
    flow(cwd)
    with serving(cwd, options={"secrets": [NEW, OLD], "token": TOKEN}) as running:
        yield running


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_signature_is_the_one_that_openssl_makes() -> None:
    known = b"sha256=5d5d139563c95b5967b9bd9a8c9b233a9dedb45072794cd232dc1b74832607d0"  # echo -n '' with key "key"
    assert auth.sign("key", b"") == known


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_either_secret_signs(locked: Server, secret: str) -> None:
    body = as_bytes({"id": f"signed by {secret}", "type": "demo"})
    assert locked.signed("/events", body, secret).status == 202
    assert locked.signed("/flow-events", body, secret).json()["status"] == "duplicate"


@pytest.mark.parametrize("changed", [BODY + b"\n", b"", BODY.replace(b"a", b"b")])
def test_a_changed_body_does_not_get_in(locked: Server, changed: bytes) -> None:
    """Source: spec 8.2 (a)."""
    sign = auth.sign(NEW, BODY).decode()
    locked.ask("POST", "/events", changed, **{"x-flow-signature-256": sign}).error(401, "unauthorized")


@pytest.mark.parametrize(
    "given",
    ["", "sha256=", "sha256=" + "0" * 64, "sha1=" + "0" * 40, "sha256=" + "0" * 63, "sha256=" + "G" * 64, "\xff",
     auth.sign(NEW, BODY).decode().upper(), auth.sign("wrong", BODY).decode(), auth.sign(NEW, BODY).decode() + "0"],
)  # fmt: skip
def test_a_wrong_signature_does_not_get_in(locked: Server, given: str) -> None:
    locked.ask("POST", "/events", BODY, **{"x-flow-signature-256": given}).error(401, "unauthorized")


@pytest.mark.parametrize("name", [one.decode() for one in auth.SIGNATURES])
def test_every_name_of_the_header_is_read(locked: Server, name: str) -> None:
    body = as_bytes({"id": name, "type": "demo"})
    assert locked.ask("POST", "/events", body, **{name: auth.sign(NEW, body).decode()}).status == 202


def test_a_later_name_counts_only_without_the_first(locked: Server) -> None:
    first, second, third = (one.decode() for one in auth.SIGNATURES)
    good, bad = auth.sign(NEW, BODY).decode(), "sha256=" + "0" * 64
    locked.ask("POST", "/events", BODY, **{first: bad, second: good}).error(401, "unauthorized")
    locked.ask("POST", "/events", BODY, **{second: bad, third: good}).error(401, "unauthorized")
    assert locked.ask("POST", "/events", BODY, **{first: good, second: bad}).status == 202


def test_two_signatures_are_none(locked: Server) -> None:
    connection = http.client.HTTPConnection(locked.host, locked.port)
    connection.putrequest("POST", "/events")
    for given in ("sha256=" + "0" * 64, auth.sign(NEW, BODY).decode()):
        connection.putheader("x-flow-signature-256", given)
    connection.putheader("content-length", str(len(BODY)))
    connection.endheaders(BODY)
    assert connection.getresponse().status == 400
    connection.close()


def test_an_empty_body_is_signed_as_such(locked: Server) -> None:
    locked.signed("/events", as_bytes({"id": "again", "type": "demo"}), NEW)
    locked.ask("POST", "/events/again/replay").error(401, "unauthorized")
    assert locked.signed("/events/again/replay", b"", NEW).status == 202


def test_a_signed_request_may_say_any_content_type(locked: Server) -> None:
    body = as_bytes({"id": "any type", "type": "demo"})
    assert locked.signed("/events", body, NEW, **{"content-type": "text/plain"}).status == 202
    locked.signed("/events", body, NEW, **{"content-encoding": "gzip"}).error(415, "unsupported")


# ── timestamps ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_timestamp_is_signed_with_the_address(locked: Server) -> None:
    now = int(time.time())
    body = as_bytes({"id": "timed", "type": "demo"})
    assert locked.signed("/events?wait=0", body, OLD, now).status == 202
    text = f"{now}.POST./events.".encode() + body
    moved = {"x-flow-signature-256": auth.sign(NEW, text).decode(), "x-flow-timestamp": str(now)}
    locked.ask("POST", "/flow-events", body, **moved).error(401, "unauthorized")
    locked.ask("POST", "/events?x=1", body, **moved).error(401, "unauthorized")
    locked.ask("POST", "/events", body, **{**moved, "x-flow-timestamp": str(now + 1)}).error(401, "unauthorized")
    locked.ask("POST", "/events", body, **{"x-flow-signature-256": moved["x-flow-signature-256"]}).error(
        401, "unauthorized"
    )
    assert locked.ask("POST", "/events", body, **moved).status == 202


@pytest.mark.parametrize("off", [-301, 301, -10_000_000])
def test_a_timestamp_outside_of_the_window_is_refused(off: int) -> None:
    at = 1_800_000_000
    headers = [(b"x-flow-signature-256", b"sha256=" + b"0" * 64), (b"x-flow-timestamp", str(at + off).encode())]
    with pytest.raises(Unauthorized, match="window"):
        auth.signature_of(headers, GOOD, at)


@pytest.mark.parametrize("off", [-300, 0, 300])
def test_a_timestamp_at_the_edge_of_the_window_is_good(off: int) -> None:
    at = 1_800_000_000
    given = b"sha256=" + b"0" * 64
    stamp = str(at + off).encode()
    headers = [(b"x-flow-signature-256", given), (b"x-flow-timestamp", stamp)]
    assert auth.signature_of(headers, GOOD, at) == (given, stamp)


@pytest.mark.parametrize("stamp", [b"", b"now", b"-1", b"1.5", b"1e9", b"\xb2", b"9" * 30])
def test_a_timestamp_that_is_none_is_refused(stamp: bytes) -> None:
    headers = [(b"x-flow-signature-256", b"sha256=" + b"0" * 64), (b"x-flow-timestamp", stamp)]
    with pytest.raises(Unauthorized):
        auth.signature_of(headers, GOOD, 1_800_000_000)


def test_a_timestamp_can_be_required() -> None:
    headers = [(b"x-flow-signature-256", b"sha256=" + b"0" * 64)]
    strict = ServerOptions(secrets=(NEW,), require_timestamp=True)
    auth.signature_of(headers, GOOD, 0)
    with pytest.raises(Unauthorized, match="timestamp"):
        auth.signature_of(headers, strict, 0)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [NEW, OLD, TOKEN])
def test_the_token_and_the_secrets_read(locked: Server, value: str) -> None:
    assert locked.ask("GET", "/events", authorization=f"Bearer {value}").status == 200
    assert locked.ask("GET", "/runs", authorization=f"bearer  {value} ").status == 200
    assert locked.ask("GET", "/metrics", **{"x-api-key": value}).status == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
def test_a_wrong_token_does_not_read(locked: Server, given: str) -> None:
    """Fault 22: all reads were open with a secret set."""
    answer = locked.ask("GET", "/runs", authorization=given)
    answer.error(401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for secret in (NEW, OLD, TOKEN):
        assert secret.encode() not in answer.body


def test_a_token_signs_nothing(locked: Server) -> None:
    locked.ask("POST", "/events", BODY, authorization=f"Bearer {NEW}").error(401, "unauthorized")
    locked.signed("/events", BODY, TOKEN).error(401, "unauthorized")


def test_every_route_refuses_who_proves_nothing(locked: Server) -> None:
    """Faults 21 and 22, over all routes of the table, by every method: a later route cannot be forgotten."""
    refused = 0
    for path in {*(one.path for one in OPERATIONS), "/", "/nope", "/ws", "//healthz", "/healthz/", "/readyz%2f"}:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"):
            answer = locked.ask(method, path.replace("{id}", "x"), b"{}" if method == "POST" else None)
            if path in ("/healthz", "/readyz") and method in ("GET", "HEAD", "OPTIONS"):
                assert answer.status in (200, 204), (method, path, answer)
            else:
                assert answer.status == 401, (method, path, answer)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "x"])
@pytest.mark.parametrize("path", ["/events", "/", "/runs/x/output"])
def test_an_upgrade_is_no_way_around(locked: Server, path: str, upgrade: str) -> None:
    """Fault 21: with a secret set, a WebSocket on the same port ran steps all the same."""
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    got = locked.raw((head + key).encode() + b"\x81\x82\x00\x00\x00\x00{}" * 10)
    assert got.startswith(b"HTTP/1.1 401 "), got
    assert got.count(b"HTTP/1.1") == 1


# ── hosts and origins ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:1", True), ("127.9.9.9", True), ("[::1]:7345", True),
        ("[::1]", True), ("good.example", True), ("good.example:99", True), ("with.port:1", True),
        ("with.port:2", False), ("with.port", False), ("evil.example", False), ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False), ("evil.example:7345", False), ("", False), ("192.168.0.1", False),
        ("[::2]", False), ("0.0.0.0", False), ("localhost@evil.example", False), ("2130706433", False),
        ("[::1]evil.example", False), ("[::1]:x", False), ("[::1", False), ("[::1%25x]", False), ("::1", False),
        ("localhost.", False), ("localhost:1:2", False), ("127.0.0.1:x", False), ("127.0.0.1:", True), (":80", False),
    ],
)  # fmt: skip
def test_without_a_secret_the_host_must_be_known(host: str, good: bool) -> None:
    """A page whose name suddenly means 127.0.0.1 would else speak as this machine."""
    options = ServerOptions(allowed_hosts=("Good.example", "with.port:1"))
    try:
        auth.check_host([(b"host", host.encode())], options)
    except Forbidden:
        assert not good
    else:
        assert good


def test_a_request_with_a_foreign_host_is_refused(server: Server) -> None:
    for target in ("/events", "/runs/x", "/metrics"):
        server.ask("GET", target, host="evil.example").error(403, "forbidden")
    assert server.ask("GET", "/healthz", host="evil.example").status == 200
    assert b" 403 " in server.raw(b"GET /events HTTP/1.0\r\n\r\n")


def test_a_foreign_origin_is_refused_with_and_without_a_secret(server: Server, locked: Server) -> None:
    """Fault 21: no origin was checked, so any web page could reach a listener on this machine."""
    headers: dict[str, str]
    for one, headers in ((server, {}), (locked, {"authorization": f"Bearer {TOKEN}"})):
        for origin in ("https://evil.example", "null", "http://localhost:1", f"http://localhost:{one.port}.evil"):
            one.ask("GET", "/events", origin=origin, **headers).error(403, "forbidden")
        own = f"http://{one.host}:{one.port}"
        assert one.ask("GET", "/events", origin=own, **headers).status == 200
    server.ask("POST", "/events", BODY, origin="https://evil.example").error(403, "forbidden")


def test_an_allowed_origin_may_read_and_send(tmp_path: Path) -> None:
    origin = "https://panel.example"
    with serving(tmp_path, options={"allowed_origins": [origin]}) as server:
        found = server.ask("GET", "/events", origin=origin)
        assert (found.status, found.headers["access-control-allow-origin"]) == (200, origin)
        asked = server.ask("OPTIONS", "/events", origin=origin, **{"access-control-request-method": "POST"})
        assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD, POST")
        assert server.ask("POST", "/events", BODY, origin=origin).status == 202
        refused = server.ask("OPTIONS", "/events", origin="https://e", **{"access-control-request-method": "POST"})
        refused.error(403, "forbidden")
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("media", "status"),
    [("application/json", 202), ("application/json; charset=utf-8", 202), ("application/cloudevents+json", 202),
     ("APPLICATION/JSON", 202), ("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("json", 415)],
)  # fmt: skip
def test_a_form_of_a_web_page_is_no_json(server: Server, media: str, status: int) -> None:
    body = as_bytes({"id": media, "type": "x"})
    assert server.ask("POST", "/events", body, **{"content-type": media}).status == status


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    [
        {"secrets": ("",)}, {"secrets": (" x",)}, {"secrets": ("x" * 5_000,)}, {"secrets": tuple("123456789")},
        {"token": "x"}, {"secrets": ("x",), "token": ""}, {"window_s": 0}, {"waits": 0}, {"head_s": float("nan")},
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        msgspec.convert(options, ServerOptions)


def test_options_do_not_show_their_secrets() -> None:
    assert NEW not in repr(GOOD)
    assert TOKEN not in repr(GOOD)

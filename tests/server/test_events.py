"""`POST /events` and the two ways to read them back."""

import time
from typing import Any
from urllib.parse import quote

import pytest

from stepwell.model.errors import Malformed
from stepwell.model.settings import MIB
from stepwell.server.http import decoded
from tests.server.support import Server, as_bytes

#: Ids with everything that a path, a query or a database could take amiss.
IDS = [
    "plain", "a/b", "/", "//", "a//b/", "../../etc/passwd", ".", "..", "a:b", "100%", "%2F", "%", "%zz", "#x", "a#b",
    "?", "a?b=c&d", "a b", " ", "+", "a+b", "ä", "日本語", "🐪", "e\u0301", "a;b,c=d", "'; drop table event; --", '"',
    "\\", "@x", "x" * 256, "ü" * 128, "\u202e", "null", "[]", "*", "~", "evt|1", "<script>",
]  # fmt: skip


def test_health(server: Server) -> None:
    assert server.ask("GET", "/healthz").json() == {"ok": True}


def test_an_event_and_its_runs(server: Server) -> None:
    sent = {
        "id": "whole",
        "type": "demo",
        "source": "s",
        "occurredAt": "2026-05-13T13:36:00Z",
        "payload": {"a": [1]},
        "x": {},
    }
    answer = server.ask("POST", "/events", as_bytes(sent))
    accepted = answer.json()
    assert (answer.status, accepted["status"], accepted["eventId"], accepted["matched"]) == (
        202,
        "accepted",
        "whole",
        2,
    )
    assert len(set(accepted["runIds"])) == 2
    found = server.get("/events/whole")
    event = found["event"]
    assert {key: event[key] for key in sent} == sent
    assert set(event) == {*sent, "receivedAt", "createdAt", "matched", "replays", "raw"}
    assert (event["matched"], event["replays"]) == (2, 0)
    assert {run["id"] for run in found["runs"]} == set(accepted["runIds"])
    assert {(run["flowName"], run["stepName"], run["eventId"]) for run in found["runs"]} == {
        ("demo", "one", "whole"), ("demo", "two", "whole"),
    }  # fmt: skip


@pytest.mark.parametrize("event_id", IDS, ids=range(len(IDS)))
def test_any_id_goes_through_and_comes_back(server: Server, event_id: str) -> None:
    accepted = server.send(event_id, type_="nobody listens")
    assert accepted == {"status": "accepted", "eventId": event_id, "runIds": [], "matched": 0}
    assert server.get(f"/events/{quote(event_id, safe='')}")["event"]["id"] == event_id
    assert server.get(f"/runs?eventId={quote(event_id, safe='')}") == {"eventId": event_id, "runs": []}
    assert server.send(event_id, type_="nobody listens")["status"] == "duplicate"


def test_an_id_with_a_slash_needs_no_escape(server: Server) -> None:
    server.send("plain/slash:colon")
    assert server.get("/events/plain/slash:colon")["event"]["id"] == "plain/slash:colon"


@pytest.mark.parametrize(
    "payload", [None, "text", "", [], [1, [2]], {}, 0, -1.5, True, 2**63, {"": None}, "\0\x1b", "🐪"]
)
def test_any_payload_is_kept_as_it_is(server: Server, payload: Any) -> None:
    """Fault 4: null and texts were accepted, and made all reading fail from then on."""
    event_id = f"payload {payload!r}"
    run_ids = server.send(event_id.encode("ascii", "backslashreplace").decode(), payload)["runIds"]
    event = server.get("/events?limit=1")["events"][0]
    assert event["payload"] == payload
    assert type(event["payload"]) is type(payload)
    assert server.ended(run_ids[0])["status"] == "completed"


def test_a_payload_may_be_left_out(server: Server) -> None:
    assert server.ask("POST", "/events", as_bytes({"id": "no payload", "type": "x"})).status == 202
    assert server.get("/events/no%20payload")["event"]["payload"] == {}


@pytest.mark.parametrize("received", [None, "", 17, [], {}])
def test_received_at_that_is_no_text_is_ours(server: Server, received: Any) -> None:
    """Fault 3: null was accepted, and lost."""
    event_id = f"received {received!r}"
    assert server.send(event_id, receivedAt=received)["status"] == "accepted"
    assert server.get(f"/events/{quote(event_id, safe='')}")["event"]["receivedAt"].startswith("20")


def test_received_at_that_is_a_text_is_the_senders(server: Server) -> None:
    server.send("received theirs", receivedAt="yesterday")
    assert server.get("/events/received%20theirs")["event"]["receivedAt"] == "yesterday"


def test_the_same_event_again_is_a_duplicate_with_the_same_runs(server: Server) -> None:
    first = server.send("twice", {"b": 1, "a": [1.0]})
    again = server.ask(
        "POST", "/events", b'{"payload":{"a":[1.0],"b":1},"type":"demo","id":"twice","receivedAt":"later"}'
    )
    assert again.status == 202
    assert again.json() == {"status": "duplicate", "eventId": "twice", "runIds": first["runIds"], "matched": 0}


@pytest.mark.parametrize(
    "other",
    [{"payload": {"a": 2}}, {"payload": None}, {"type": "demo2"}, {"source": "s"}, {"occurredAt": "now"}, {"x": 1}],
)
def test_the_same_id_with_another_body_is_a_conflict(server: Server, other: dict[str, Any]) -> None:
    body = {"id": "conflict", "type": "demo", "payload": {"a": 1}}
    assert server.ask("POST", "/events", as_bytes(body)).status == 202
    refused = server.ask("POST", "/events", as_bytes({**body, **other})).error(409, "conflict")
    assert refused["event_id"] == "conflict"
    assert server.get("/events/conflict")["event"]["payload"] == {"a": 1}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"id":"x","type":"demo"} x', "JSON"),
        (b'{"id":"x","type":"demo","payload":NaN}', "NaN"),
        (b'{"id":"x","id":"y","type":"demo"}', "twice"),
        (b'{"id":"x","type":"demo","payload":' + b"9" * 30 + b"}", "64 bits"),
        (b'{"id":"x","type":"demo","payload":18446744073709551616}', "64 bits"),
        (b'{"id":"x","type":"demo","payload":1e999}', "finite"),
        (b'{"id":"x","type":"demo","payload":"\\ud800"}', "surrogates"),
        (b'{"id":"x\\ud800","type":"demo"}', "surrogates"),
        (b'{"id":"x","type":"demo","\\udc00":1}', "surrogates"),
        (b'{"id":"x","type":"demo","payload":' + b"[" * 100 + b"]" * 100 + b"}", "deeper"),
        (b"[" * 500_000, "deeper"),
        (b"[" * 500_000 + b"]" * 500_000, "deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper"),
        (b"null", "object"),
        (b'"text"', "object"),
        (b"[]", "object"),
        (b"{}", "id"),
        (b'{"id":"x"}', "type"),
        (b'{"id":"","type":"demo"}', "id"),
        (b'{"id":7,"type":"demo"}', "id"),
        (b'{"id":null,"type":"demo"}', "id"),
        (b'{"id":"a\\u0000b","type":"demo"}', "control"),
        (b'{"id":"a\\nb","type":"demo"}', "control"),
        (b'{"id":"' + b"x" * 257 + b'","type":"demo"}', "256"),
        (b'{"id":"x","type":"' + b"t" * 129 + b'"}', "128"),
        (b'{"id":"x","type":"demo","source":7}', "source"),
        (b'{"id":"x","type":"demo","source":""}', "source"),
        (b'{"id":"x","type":"demo","occurredAt":{}}', "occurredAt"),
    ],
    ids=range(31),
)
def test_a_body_that_is_no_event_is_refused_with_its_reason(server: Server, body: bytes, says: str) -> None:
    """Fault 20: client errors were answered with 500 and a stack."""
    unreadable = says in ("JSON", "NaN", "twice") or b"9" * 30 in body
    expected = (400, "malformed") if unreadable else (422, "invalid")
    assert says in server.ask("POST", "/events", body).error(*expected)["error"]


def test_a_long_received_at_is_refused(server: Server) -> None:
    answer = server.ask("POST", "/events", as_bytes({"id": "r", "type": "x", "receivedAt": "z" * 500}))
    assert answer.status in (413, 422)
    assert answer.json()["hint"]


def event_of(size: int, event_id: str) -> bytes:
    """An event whose JSON has this many bytes."""
    body = as_bytes({"id": event_id, "type": "big", "payload": ""})
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


def test_a_body_up_to_the_bound_is_accepted_and_one_over_it_is_not(server: Server) -> None:
    assert len(event_of(MIB, "fits")) == MIB
    assert server.ask("POST", "/events", event_of(MIB, "fits")).status == 202
    assert len(server.get("/events/fits")["event"]["payload"]) > MIB - 100
    for size in (MIB + 1, 20 * MIB):
        refused = server.ask("POST", "/events", event_of(size, "over")).error(413, "too_large")
        assert refused["limit"] == MIB
    assert server.ask("GET", "/events/over").status == 404


def test_a_body_that_grows_over_the_bound_when_it_is_stored_is_too_large(server: Server) -> None:
    body = b'{"id":"grows","type":"x","payload":[' + b",".join([b"1E9"] * 200_000) + b"]}"
    server.ask("POST", "/events", body).error(413, "too_large")


def test_a_chunked_body_over_the_bound_is_refused_before_it_is_read(server: Server) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = server.raw(head + (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 2)
    assert got.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_never_comes_whole_leaves_no_trace(server: Server) -> None:
    for data in (b"", b'{"id":"ha'):
        server.raw(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n" + data, patience_s=0.2)
    assert server.ask("GET", "/healthz").status == 200
    time.sleep(0.2)
    assert "Traceback" not in server.log.read_text()


def test_events_come_in_pages_newest_first(server: Server) -> None:
    for n in range(7):
        server.send(f"page {n}", type_="paged")
    seen: list[str] = []
    query, pages = "/events?type=paged&limit=3", 0
    while query:
        page = server.get(query)
        seen += [event["id"] for event in page["events"]]
        pages += 1
        query = f"/events?type=paged&limit=3&cursor={page['cursor']}" if "cursor" in page else ""
    assert seen == [f"page {n}" for n in reversed(range(7))]
    assert pages == 3
    assert server.get("/events?type=no%20such") == {"events": []}


def test_an_unknown_event_is_not_found(server: Server) -> None:
    for path in ("/events/nope", "/events/", "/events/%00", "/events/no%2fb", "/events/a%2Freplay"):
        answer = server.ask("GET", path)
        assert "event not found" in answer.error(404, "unknown")["error"]


@pytest.mark.parametrize(
    "target",
    ["/events/%ff", "/events/%yy", "/events/%", "/runs/%c3", "/runs/%ED%A0%80", "/runs/%2/output", "/events?type=%zz",
     "/runs?eventId=%ff", "/runs?%f=1", "/events?" + "&".join(f"a{n}=" for n in range(200))],
)  # fmt: skip
def test_a_target_that_cannot_be_read_is_refused(server: Server, target: str) -> None:
    """Fault 20: bad percent-encoding was a 500."""
    server.ask("GET", target).error(400, "malformed")
    server.ask("POST", "/events/%ff/replay").error(400, "malformed")


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"", ""), (b"a%2Fb", "a/b"), (b"%2f%c3%A4", "/\xe4"), (b"%25", "%"), (b"%2525", "%25"), (b"a+b", "a+b"),
     (b"%00", "\0"), (b"%0a%7F", "\n\x7f"), (b"\xc3\xa4", "\xe4")],
)  # fmt: skip
def test_what_is_percent_encoded(raw: bytes, text: str) -> None:
    assert decoded(raw, "it") == text


@pytest.mark.parametrize(
    "raw",
    [b"%", b"a%", b"%2", b"%%25", b"%g0", b"%0g", b"%2 5", b"%u0041", b"%-1", b"%25%", b"%c3", b"\xff", b"%C0%AF"],
)
def test_what_is_not_exactly_percent_encoded_utf_8(raw: bytes) -> None:
    """Python's own decoder takes `%g0` as it stands, so that two ids could have one address."""
    with pytest.raises(Malformed, match="it "):
        decoded(raw, "it")


def test_a_parameter_twice_is_refused(server: Server) -> None:
    server.ask("GET", "/events?limit=1&limit=2").error(422, "invalid")

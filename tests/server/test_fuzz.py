"""Whatever a client sends: JSON comes back, the status blames whoever is at fault, and that is never the server."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.model.settings import MIB
from tests.server.fuzz import fuzz, requests, resident_bytes
from tests.server.support import Server, as_bytes, lawful, serving

BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
likely = st.sampled_from(["id", "type", "source", "occurredAt", "receivedAt", "payload"])
events = st.dictionaries(likely | texts, values, max_size=8) | st.fixed_dictionaries(
    {"id": texts | values, "type": st.sampled_from(["demo", "x"]) | values},
    optional={"payload": values, "source": values, "occurredAt": values, "receivedAt": values, "extra": values},
)
queries = st.dictionaries(
    st.sampled_from(["limit", "cursor", "type", "status", "resultStatus", "eventId", "name", "needsAttention"]) | texts,
    texts | st.integers().map(str),
    max_size=4,
)


def check(server: Server, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
    """The body of any answer that is well, or the client's fault and said so."""
    answer = server.ask(method, target, body)
    found = answer.json()
    assert answer.status in (200, 202, 400, 404, 405, 409, 413, 415, 422), (target, body, answer)
    if answer.status >= 400:
        answer.error(answer.status, found["code"])
    assert b"/site-packages/" not in answer.body
    return found


@BOUNDED
@given(event=events)
def test_any_json_as_an_event(server: Server, event: dict[str, Any]) -> None:
    found = check(server, "POST", "/events", as_bytes(event))
    if found.get("status") == "accepted":
        stored = server.get("/events?limit=1")["events"][0]
        assert stored["id"] == event["id"]
        assert json.dumps(stored["payload"], sort_keys=True) == json.dumps(event.get("payload", {}), sort_keys=True)
        assert check(server, "POST", "/events", as_bytes(event))["status"] == "duplicate"


@BOUNDED
@given(body=st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_body(server: Server, body: bytes) -> None:
    check(server, "POST", "/events", body)


@BOUNDED
@given(path=st.sampled_from(["/events", "/runs"]), query=queries)
def test_any_query(server: Server, path: str, query: dict[str, str]) -> None:
    text = "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in query.items())
    check(server, "GET", f"{path}?{text}")


@BOUNDED
@given(
    base=st.sampled_from(["/", "/events/", "/runs/"]),
    rest=st.binary(max_size=30).map(lambda raw: quote(raw)) | st.text("/%?&=.:;@+~!$'()*,[]a0", max_size=30),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
)
def test_any_path(server: Server, base: str, rest: str, method: str) -> None:
    if method == "HEAD":
        assert server.ask(method, base + rest).status in (200, 400, 404, 405, 422)
    else:
        check(server, method, base + rest)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.mark.parametrize("secret", [None, "a secret"])
def test_any_bytes_to_any_route(tmp_path: Path, secret: str | None) -> None:
    """Faults 20 to 22: no 500, no hang, no growth, and nothing for who proves nothing."""
    options = {"head_s": 0.1, "body_s": 0.1, **({"secrets": [secret]} if secret else {})}
    with serving(tmp_path, options=options, slots=0) as server:
        seed = 20 if secret is None else 21
        fuzz(server, requests(seed, 200, secret), secured=secret is not None)
        before = resident_bytes(server)
        statuses = fuzz(server, requests(seed + 100, 500, secret), secured=secret is not None)
        assert resident_bytes(server) - before < 16 * MIB
        expected = {200, 202, 400, 404, 405, 408, 415, 422} if secret is None else {200, 202, 400, 401, 404}
        assert expected <= statuses.keys(), statuses
        assert server.ask("GET", "/healthz").status == 200
    lawful(tmp_path)

"""Waiting for ends, replay, cancel and retry over HTTP (source: spec codex-flows 4.6, fault 23)."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stepwell.model.errors import Invalid
from stepwell.server.waits import MAX_WAIT_S, WAIT_S, wait_of_body, wait_of_query
from tests.server.support import OK, Server, as_bytes, flow, lawful, serving

END = b'{"terminate":true}'


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for three waits, and flows that end at once, soon, never and badly."""
    cwd: Path = tmp_path_factory.mktemp("waiting")
    flow(cwd, "soon", {"a": "sleep 0.3; " + OK, "b": OK}, "soon")
    flow(cwd, "never", {"go": "echo begun; exec sleep 60"}, "never")
    flow(cwd, "bad", {"go": "exit 3"}, "bad")
    with serving(cwd, options={"waits": 3}, slots=8) as running:
        yield running
    lawful(cwd)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("0", 0), ("false", 0), ("1", WAIT_S), ("true", WAIT_S), ("2", 2), ("0.25", 0.25), ("300", MAX_WAIT_S)],
)
def test_what_a_wait_may_be(text: str, seconds: float) -> None:
    assert wait_of_query({"wait": text}) == seconds


@pytest.mark.parametrize("text", ["yes", "-1", "301", "300.1", "1e2", "nan", "1.2345", " 1", "²", "1000"])
def test_what_a_wait_may_not_be(server: Server, text: str) -> None:
    with pytest.raises(Invalid):
        wait_of_query({"wait": text})


@pytest.mark.parametrize("value", ["true", -1, 301, [], {}, float("nan")])
def test_what_a_wait_in_a_body_may_not_be(value: Any) -> None:
    with pytest.raises(Invalid):
        wait_of_body({"wait": value})


def test_a_wait_answers_with_the_runs_when_they_have_ended(waiting: Server) -> None:
    """Fault 23: `wait` on dispatch was sent, and ignored."""
    for path, event_id in (("/events?wait=true", "w1"), ("/flow-events?wait=10", "w2")):
        answer = waiting.ask("POST", path, as_bytes({"id": event_id, "type": "soon"}))
        told = answer.json()
        assert (answer.status, told["status"], told["matched"], told["ended"]) == (202, "accepted", 2, True)
        assert [run["id"] for run in told["runs"]] == told["runIds"]
        assert {run["status"] for run in told["runs"]} == {"completed"}
    again = waiting.ask("POST", "/events?wait=5", as_bytes({"id": "w1", "type": "soon"})).json()
    assert (again["status"], again["ended"], len(again["runs"])) == ("duplicate", True, 2)


def test_a_wait_for_nothing_is_over_at_once(waiting: Server) -> None:
    told = waiting.ask("POST", "/events?wait=300", as_bytes({"id": "none", "type": "nobody"})).json()
    assert (told["runs"], told["ended"]) == ([], True)


def test_a_wait_that_is_too_short_says_how_it_stands(waiting: Server) -> None:
    started = time.monotonic()
    told = waiting.ask("POST", "/events?wait=0.2", as_bytes({"id": "short", "type": "never"})).json()
    assert 0.15 < time.monotonic() - started < 5
    (run,) = told["runs"]
    assert (told["ended"], run["status"]) == (False, run["status"])
    assert run["status"] in ("queued", "running")
    found = waiting.ask("GET", f"/runs/{run['id']}?wait=0.1").json()
    assert found["ended"] is False
    waiting.ask("POST", f"/runs/{run['id']}/cancel", b'{"terminate":true}')
    ended = waiting.ask("GET", f"/runs/{run['id']}?wait=10").json()
    assert (ended["ended"], ended["run"]["status"]) == (True, "canceled")


def test_too_many_waits_are_refused_and_nothing_is_accepted_then(waiting: Server) -> None:
    (run_id,) = waiting.send("many", type_="never")["runIds"]
    waiting.until(run_id, lambda run: run["status"] == "running")
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(waiting.ask, "GET", f"/runs/{run_id}?wait=20") for _ in range(3)]
        waiting.until_waits(3)
        refused = waiting.ask("POST", "/events?wait=5", as_bytes({"id": "too many", "type": "soon"}))
        refused.error(429, "limited")
        assert refused.headers["retry-after"]
        waiting.ask("GET", "/events/too%20many").error(404, "unknown")
        waiting.ask("GET", f"/runs/{run_id}/output?stream=1").error(429, "limited")
        waiting.ask("GET", f"/runs/{run_id}?wait=1").error(429, "limited")
        assert waiting.send("without wait", type_="soon")["status"] == "accepted"
        assert waiting.ask("POST", f"/runs/{run_id}/cancel", b'{"terminate":true}').status == 202
        assert [one.result().json()["ended"] for one in held] == [True] * 3
    waiting.until_waits(0)


def test_a_client_that_goes_gives_its_place_back(waiting: Server) -> None:
    (run_id,) = waiting.send("gone", type_="never")["runIds"]
    for tail in (f"/runs/{run_id}?wait=300", f"/runs/{run_id}/output?stream=1"):
        with socket.create_connection((waiting.host, waiting.port)) as sock:
            sock.sendall(f"GET {tail} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            waiting.until_waits(1)
        waiting.until_waits(0)
    waiting.ask("POST", f"/runs/{run_id}/cancel", b'{"terminate":true}')


def test_a_client_that_went_is_counted_as_such(waiting: Server) -> None:
    """Nobody heard a 200."""
    (run_id,) = waiting.send("went", type_="never")["runIds"]
    gone = b'stepwell_http_requests_total{method="GET",route="/runs/{id}",status="499"} '
    before = waiting.ask("GET", "/metrics").body.partition(gone)[2].partition(b"\n")[0]
    with socket.create_connection((waiting.host, waiting.port)) as sock:
        sock.sendall(f"GET /runs/{run_id}?wait=300 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        waiting.until_waits(1)
    waiting.until_waits(0)
    assert waiting.ask("GET", "/metrics").body.partition(gone)[2].partition(b"\n")[0] not in (b"", before)
    waiting.ask("POST", f"/runs/{run_id}/cancel", b'{"terminate":true}')


def test_a_wait_for_more_runs_than_are_shown_is_for_all_of_them(tmp_path: Path) -> None:
    for name in "abcdef":  # a manifest has a bound of its own
        flow(tmp_path, name, {f"s{n}": OK for n in range(84)})
    with serving(tmp_path, "--slots", "0") as server, ThreadPoolExecutor(4) as pool:
        run_ids = server.send("e")["runIds"]
        assert len(run_ids) == 504
        cancels = [
            pool.submit(server.ask, "POST", f"/runs/{one}/cancel", b'{"terminate":true}') for one in run_ids[:-1]
        ]
        assert {one.result().status for one in cancels} == {202}
        told = server.ask("POST", "/events?wait=0.1", as_bytes({"id": "e", "type": "demo", "payload": None})).json()
        assert (told["ended"], len(told["runs"]), {run["status"] for run in told["runs"]}) == (False, 500, {"canceled"})


def test_the_end_of_the_server_ends_waits_and_streams(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": "exec sleep 60"})
    with serving(tmp_path, "--drain", "0.1") as server:
        (run_id,) = server.send("e")["runIds"]
        answers: list[Any] = []
        asks = [f"/runs/{run_id}?wait=300", f"/runs/{run_id}/output?stream=1"]
        threads = [threading.Thread(target=lambda ask=ask: answers.append(server.ask("GET", ask))) for ask in asks]
        for thread in threads:
            thread.start()
        server.until_waits(2)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 4
        for thread in threads:
            thread.join(5)
        assert [one.status for one in answers] == [200, 200]


# ── replay ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_runs_all_again_or_some(waiting: Server) -> None:
    waiting.ask("POST", "/events?wait=10", as_bytes({"id": "r/1", "type": "soon"}))
    told = waiting.ask("POST", "/events/r%2F1/replay", b'{"wait":true}').json()
    assert (told["status"], told["ended"], len(told["runs"])) == ("accepted", True, 2)
    assert {run["replay"] for run in told["runs"]} == {1}
    some = waiting.ask("POST", "/events/r/1/replay?wait=10", b'{"steps":["soon/b"]}').json()
    assert [run["stepName"] for run in some["runs"]] == ["b"]
    assert len(waiting.ask("POST", "/events/r%2F1/replay", b'{"steps":["soon"]}').json()["runIds"]) == 2
    assert len(waiting.ask("POST", "/events/r%2F1/replay").json()["runIds"]) == 2


def test_a_replay_of_what_is_not_there_is_not_found(waiting: Server) -> None:
    """Fault 20: this was a 500."""
    waiting.ask("POST", "/events/nope/replay").error(404, "unknown")
    waiting.send("r2", type_="soon")
    waiting.ask("POST", "/events/r2/replay", b'{"steps":["soon/nope"]}').error(404, "unknown")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b"null", 422), (b'{"step":"a"}', 422), (b'{"steps":"a"}', 422),
     (b'{"steps":[1]}', 422), (b'{"wait":"true"}', 422), (b'{"wait":999}', 422), (b"{" * 2_000_000, 413),
     (b'{"wait":true,"wait":false}', 400)],
    ids=range(10),
)  # fmt: skip
def test_a_bad_body_of_a_replay_is_refused(waiting: Server, body: bytes, status: int) -> None:
    waiting.ask("POST", "/events/r2/replay", body).error(
        status, {400: "malformed", 413: "too_large", 422: "invalid"}[status]
    )


@pytest.mark.parametrize("suffix", ["/replay", "/output", "/cancel", "/retry", "replay"])
def test_an_id_that_ends_like_a_route_is_reached_when_it_is_encoded(waiting: Server, suffix: str) -> None:
    event_id = f"x{suffix}"
    waiting.send(event_id, type_="nobody")
    raw = event_id.replace("/", "%2F")
    assert waiting.get(f"/events/{raw}")["event"]["id"] == event_id
    assert waiting.ask("POST", f"/events/{raw}/replay").json()["eventId"] == event_id
    waiting.ask("GET", f"/runs/{raw}/output").error(404, "unknown")


# ── cancel and retry ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancel_asks_and_a_terminate_does_not(waiting: Server) -> None:
    """Fault 23: there was no cancel route."""
    run_ids = [waiting.send(f"c{n}", type_="never")["runIds"][0] for n in range(2)]
    for run_id in run_ids:
        waiting.until(run_id, lambda run: "begun" in run.get("stdout", ""))
    asked = waiting.ask("POST", f"/runs/{run_ids[0]}/cancel", b'{"reason":"enough"}')
    assert (asked.status, asked.json()["run"]["id"]) == (202, run_ids[0])
    run = waiting.ended(run_ids[0])
    assert run["status"] == "canceled"
    requested = next(entry for entry in run["journal"] if entry["kind"] == "cancel.requested")
    assert requested["data"] == {"by": "http", "reason": "enough"}
    ended = waiting.ask("POST", f"/runs/{run_ids[1]}/cancel", b'{"terminate":true}').json()
    assert ended["run"]["status"] == "canceled"
    for run_id in run_ids:
        waiting.ask("POST", f"/runs/{run_id}/cancel").error(409, "ended")
        waiting.ask("POST", f"/runs/{run_id}/cancel", b'{"terminate":true}').error(409, "ended")


def test_a_retry_is_for_what_has_ended(waiting: Server) -> None:
    (run_id,) = waiting.send("t1", type_="bad")["runIds"]
    assert waiting.ended(run_id)["status"] == "failed"
    again = waiting.ask("POST", f"/runs/{run_id}/retry", b"{}")
    assert (again.status, again.json()["run"]["generation"]) == (202, 2)
    waiting.ended(run_id)
    (open_id,) = waiting.send("t2", type_="never")["runIds"]
    waiting.ask("POST", f"/runs/{open_id}/retry").error(409, "open")
    waiting.ask("POST", f"/runs/{open_id}/cancel", b'{"terminate":true}')
    waiting.ask("POST", "/runs/nope/retry").error(404, "unknown")
    for run_id in ("nope", "", "%00", "x" * 500, "a%2Fcancel"):
        for action in ("cancel", "retry"):
            waiting.ask("POST", f"/runs/{run_id}/{action}").error(404, "unknown")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b'{"reason":7}', 422), (b'{"terminate":1}', 422), (b'{"terminate":"yes"}', 422),
     (b'{"now":true}', 422), (b'{"reason":"' + b"x" * 1_100 + b'"}', 422), (b'{"reason":"\\ud800"}', 422)],
    ids=range(8),
)  # fmt: skip
def test_a_bad_body_of_a_cancel_is_refused(waiting: Server, body: bytes, status: int) -> None:
    waiting.ask("POST", "/runs/nope/cancel", body).error(status, {400: "malformed", 422: "invalid"}[status])

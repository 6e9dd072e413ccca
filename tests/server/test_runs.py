"""`/runs`, filters and limits, and everything that is no route."""

from urllib.parse import quote

import pytest

from tests.server.support import Server


def test_a_run_by_itself(server: Server) -> None:
    one, _ = sorted(server.send("of a run")["runIds"], key=lambda run_id: server.ended(run_id)["stepName"])
    run = server.ended(one)
    assert (run["status"], run["resultStatus"], run["result"]) == ("completed", "completed", {"status": "completed"})
    assert run["name"] == "demo/one"
    assert run["stdout"].startswith("hello\nFLOW_RESULT ")
    assert [entry["kind"] for entry in run["journal"]] == ["run.created", "attempt.started", "run.completed"]
    assert [entry["seq"] for entry in run["journal"]] == [1, 2, 3]
    (attempt,) = run["attempts"]
    assert (attempt["attempt"], attempt["ended"]) == (1, "completed")
    assert run["createdAt"] <= run["startedAt"] <= run["completedAt"]
    assert run["why"] == "ended: completed"
    assert "error" not in run  # absent, not null


@pytest.mark.parametrize("run_id", ["nope", "", "run_x/y", "%", "\0", "ä", "run_" + "a" * 300])
def test_an_unknown_run_is_not_found(server: Server, run_id: str) -> None:
    assert "run not found" in server.ask("GET", f"/runs/{quote(run_id)}").error(404, "unknown")["error"]


def test_runs_come_in_pages_by_event_and_by_status(server: Server) -> None:
    run_ids = [run_id for n in range(4) for run_id in server.send(f"runs {n}")["runIds"]]
    for run_id in run_ids:
        server.ended(run_id)
    seen: list[str] = []
    query = "/runs?limit=3"
    while query and len(seen) < 8:
        page = server.get(query)
        seen += [run["id"] for run in page["runs"]]
        query = f"/runs?limit=3&cursor={page['cursor']}" if "cursor" in page else ""
    assert seen[:8] == list(reversed(run_ids))
    assert {run["id"] for run in server.get("/runs?eventId=runs%202&status=completed")["runs"]} == set(run_ids[4:6])
    assert server.get("/runs?eventId=runs%202&status=failed") == {"eventId": "runs 2", "runs": []}
    assert server.get("/runs?eventId=no%20such") == {"eventId": "no such", "runs": []}
    assert {run["name"] for run in server.get("/runs?name=demo/two&resultStatus=completed")["runs"]} == {"demo/two"}
    assert server.get("/runs?needsAttention=1") == {"runs": []}


@pytest.mark.parametrize(("limit", "count"), [("", 50), ("0", 50), ("1", 1), ("50", 50), ("499", 60), ("999999", 60)])
def test_the_limit_has_a_default_and_a_bound(server: Server, limit: str, count: int) -> None:
    have = len(server.get("/events?type=limited&limit=500")["events"])
    for n in range(have, 60):
        server.send(f"limit {n}", type_="limited")
    assert len(server.get(f"/events?type=limited&limit={limit}")["events"]) == count


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "1e3", "%C2%B2", "NaN", "%201", "9" * 30, "0x10", "1,2"])
@pytest.mark.parametrize("query", ["/events?limit=", "/runs?limit=", "/events?cursor=", "/runs?cursor="])
def test_limits_and_cursors_are_whole_numbers(server: Server, query: str, value: str) -> None:
    refused = server.ask("GET", query + value).error(422, "invalid")
    assert refused["field"] == query.partition("?")[2][:-1]


@pytest.mark.parametrize("query", ["status=done", "resultStatus=fine", "status=", "status=completed%20"])
def test_an_unknown_status_is_refused_with_the_known_ones(server: Server, query: str) -> None:
    assert "completed" in server.ask("GET", f"/runs?{query}").error(422, "invalid")["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nope",
        "/event",
        "/EVENTS",
        "/healthz/",
        "/healthz/x",
        "/events.json",
        "/favicon.ico",
        "//",
        "/%2e%2e",
        "/%65vents",
        "/events%2Fa",
        "/events%2Fa%2Freplay",
        "/%68ealthz",
        "//healthz",
        "/./healthz",
    ],
)
def test_what_is_no_route(server: Server, path: str) -> None:
    server.ask("GET", path).error(404, "unknown")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/events", "GET, HEAD, POST"),
        ("/flow-events", "POST"),
        ("/events/x", "GET, HEAD"),
        ("/events/x/replay", "POST"),
        ("/events/a%2Fb/replay", "POST"),
        ("/runs/x/cancel", "POST"),
        ("/runs/x/retry", "POST"),
        ("/runs/x/output", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/runs", "GET, HEAD"),
        ("/runs/x", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_which_are_right(server: Server, path: str, allowed: str) -> None:
    for method in ("PUT", "DELETE", "PATCH", "GET" if "GET" not in allowed else "POST"):
        if method not in allowed:
            answer = server.ask(method, path)
            answer.error(405, "invalid")
            assert answer.headers["allow"] == allowed
    asked = server.ask("OPTIONS", path)
    assert (asked.status, asked.headers["allow"], asked.body) == (204, allowed, b"")


def test_head_is_get_without_a_body(server: Server) -> None:
    for path in ("/healthz", "/events", "/runs"):
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    assert server.ask("HEAD", "/runs/nope").status == 404


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"BREW /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /events\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /events HTTP/9.9\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=range(7),
)
def test_what_is_no_http_harms_nobody(server: Server, data: bytes) -> None:
    got = server.raw(data)
    assert b" 500 " not in got.partition(b"\r\n")[0]
    assert b"Traceback" not in got
    assert server.ask("GET", "/healthz").status == 200

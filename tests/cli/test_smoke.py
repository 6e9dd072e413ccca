"""`stepwell smoke` against real servers, and against what is none."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.support import Shop
from tests.server.support import OK, flow, serving

SECRET = "a secret that nobody may see"
CHECKS = ["alive", "ready", "accepted", "duplicate", "stored", "listed", "replayed", "runs ended"]


def test_a_server_that_is_well(shop: Shop) -> None:
    with serving(shop.cwd) as server:
        found = shop.json("smoke", "--url", server.url)
        assert found["ok"]
        assert [one["check"] for one in found["checks"]] == CHECKS
        assert all(one["ok"] and one["ms"] >= 0 for one in found["checks"])
        assert "no flow here" in found["checks"][-1]["message"]
        text = shop.ok("smoke", "--no-json", "--url", f"{server.url}/")
        assert [line.split()[0] for line in text.splitlines()] == ["ok"] * len(CHECKS)
        types = {event["type"] for event in server.get("/events")["events"]}
        assert types == {"stepwell.smoke"}


def test_runs_of_a_flow_that_listens_to_it_are_waited_for(shop: Shop) -> None:
    flow(shop.cwd, "smoke", {"go": OK}, type_="stepwell.smoke")
    with serving(shop.cwd) as server:
        found = shop.json("smoke", "--url", server.url)
        assert found["checks"][-1]["message"] == "2 runs completed"
        flow(shop.cwd, "smoke", {"go": "exit 3"}, type_="stepwell.smoke")
        bad = shop.json("smoke", "--url", server.url, code=1)
        assert (bad["checks"][-1]["check"], bad["checks"][-1]["ok"]) == ("runs ended", False)
    with serving(shop.cwd, "--slots", "0") as server:
        stuck = shop.json("smoke", "--url", server.url, "--timeout", "0.3", code=1)
        assert "still queued" in stuck["checks"][-1]["message"]
        assert "worker" in stuck["hint"]


def test_a_server_with_a_secret(shop: Shop) -> None:
    """The right one, by either of its names; a wrong one, and none; and it is never shown."""
    with serving(
        shop.cwd, STEPWELL_SECRET=SECRET, STEPWELL_TOKEN="for reads", STEPWELL_REQUIRE_TIMESTAMP="1"
    ) as server:
        ask = ("smoke", "--url", server.url)
        assert shop.json(*ask, STEPWELL_SECRET=SECRET)["ok"]
        assert shop.json(*ask, STEPWELL_SECRET=SECRET, STEPWELL_TOKEN="for reads")["ok"]
        assert shop.json(*ask, CODEX_FLOW_BACKEND_SECRET=SECRET)["ok"]
        assert shop.json(*ask, "--secret-env", "MINE", MINE=SECRET)["ok"]
        for env in ({}, {"STEPWELL_SECRET": "wrong " + SECRET}):
            done = shop.call(*ask, "--json", **env)
            assert done.returncode == 1
            assert SECRET not in done.stdout + done.stderr
            found = json.loads(done.stdout)
            assert (found["checks"][-1]["check"], "STEPWELL_SECRET" in found["hint"]) == ("accepted", True)
        wrong = shop.json(*ask, STEPWELL_SECRET=SECRET, STEPWELL_TOKEN="wrong", code=1)
        assert wrong["checks"][-1]["check"] == "stored"
        assert "401" in wrong["checks"][-1]["message"]


@contextmanager
def saying(data: bytes) -> Iterator[str]:
    """The address of something that answers every connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "status 403", "STEPWELL_ALLOWED_HOSTS"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}", "status 404", "--url"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", "no JSON", "Stepwell server"),
        (b"SSH-2.0-x\r\n", "no HTTP answer", "HTTP server"),
        (b"", "no HTTP answer", "HTTP server"),
    ],
)
def test_what_is_no_stepwell(shop: Shop, data: bytes, message: str, hint: str) -> None:
    with saying(data) as url:
        found = shop.json("smoke", "--url", url, code=1)
    assert message in found["checks"][0]["message"]
    assert hint in found["hint"]
    assert len(found["checks"]) == 1


def test_nobody_there_and_nobody_who_answers(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        found = shop.json("smoke", "--url", url, "--timeout", "0.2", code=1)
        assert "no answer within 0.2 s" in found["checks"][0]["message"]
    done = shop.call("smoke", "--no-json", "--url", url)
    assert (done.returncode, "connection refused" in done.stdout, "hint:" in done.stderr) == (1, True, True)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:99999", "http://x y", "http://x/?a=1"])
def test_an_address_that_is_none(shop: Shop, url: str) -> None:
    assert "no address" in shop.refused("smoke", "--url", url)


def test_a_password_in_the_address_is_not_shown(shop: Shop) -> None:
    assert "hunter2" not in shop.refused("smoke", "--url", "http://me:hunter2@127.0.0.1:1")


def test_it_sends_no_other_type(shop: Shop, tmp_path: Path) -> None:
    assert "--type" in shop.misused("smoke", "--type", "upstream.release")
    assert "MISSING" in shop.refused("smoke", "--secret-env", "MISSING")

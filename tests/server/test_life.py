"""How a server begins and ends, and what it says when it cannot."""

import contextlib
import os
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import KIB
from stepwell.server.serve import listen
from tests.server.support import OK, PATIENCE_S, Server, as_bytes, database, environ, flow, lawful, serving, stepwell
from tests.support import by_hand
from tests.support.nursery import run


def refused(cwd: Path, *args: str, **env: str) -> str:
    """What `serve` says when it does not start."""
    done = run(stepwell("serve", "--cwd", str(cwd), *args), env=environ(**env), timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    assert "\nhint:  " in done.stderr
    return done.stderr


def test_a_host_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    """Fault 21: without a secret nobody else may connect."""
    assert "no authentication" in refused(tmp_path, "--host", "0.0.0.0")
    for host in ("0.0.0.0", "::", "192.168.1.1", "example.com", "", "127.0.0.1.evil.example", "::ffff:8.8.8.8"):
        with pytest.raises(Invalid, match="no authentication"):
            listen(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_a_loopback_host_is_served(tmp_path: Path, host: str) -> None:
    with serving(tmp_path, "--host", host) as server:
        assert server.get("/healthz") == {"ok": True}
        mine = socket.gethostbyname(host)
        assert server.url == f"http://{mine}:{server.port}"


def test_ipv6_is_served_or_refused_with_the_reason(tmp_path: Path) -> None:
    """A machine without IPv6 gets an error, not a stack."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        assert "cannot listen on ::1" in refused(tmp_path, "--host", "::1")
    else:
        with serving(tmp_path, "--host", "::1") as server:
            assert server.url == f"http://[::1]:{server.port}"
            assert server.get("/healthz") == {"ok": True}


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        said = refused(tmp_path, "--port", str(server.port))
        assert f"cannot listen on 127.0.0.1 port {server.port}" in said
        assert "--port" in said
    with listen("127.0.0.1", 0) as mine, pytest.raises(Unavailable):  # taken before the first request can come
        listen("127.0.0.1", mine.getsockname()[1])


def test_term_drains_what_runs_and_exits_well(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f"echo $$ > {tmp_path}/pid; sleep 0.8; {OK}"})
    with serving(tmp_path) as server:
        (run_id,) = server.send("e")["runIds"]
        server.until(run_id, lambda run: run["status"] == "running")
        started = time.monotonic()
        assert server.stop() == 0
        assert 0.3 < time.monotonic() - started < 10
        with serving(tmp_path, "--slots", "0") as after:
            run = after.get(f"/runs/{run_id}")["run"]
            assert (run["status"], len(run["attempts"])) == ("completed", 1)
    lawful(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_end_in_time_is_handed_back(tmp_path: Path, number: signal.Signals) -> None:
    flow(tmp_path, steps={"go": f"echo $$ > {tmp_path}/pid; exec sleep 60"})
    with serving(tmp_path, "--drain", "0.1") as server:
        (run_id,) = server.send("e")["runIds"]
        server.until(run_id, lambda run: run["status"] == "running")
        pid = int(when(tmp_path / "pid"))
        started = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - started < 5
        gone(pid)
        with serving(tmp_path, "--slots", "0") as after:
            run = after.get(f"/runs/{run_id}")["run"]
            assert (run["status"], run["attempts"][0]["ended"]) == ("queued", "released")


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as server, socket.create_connection((server.host, server.port)) as sock:
        body = as_bytes({"id": "e", "type": "x"})
        sock.sendall(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        sock.sendall(body[5:])
        assert sock.recv(100).startswith(b"HTTP/1.1 202 ")


def test_a_killed_server_leaves_no_step_behind_and_its_heir_runs_it_again(tmp_path: Path) -> None:
    """Fault 6: a killed server left its runs running for ever. Here the lease decides, which is over soon."""
    flow(tmp_path, steps={"go": f"echo $$ >> {tmp_path}/pids; [ -e {tmp_path}/go ] || exec sleep 60; {OK}"})
    with Server(tmp_path) as server:
        (run_id,) = server.send("e")["runIds"]
        pid = int(when(tmp_path / "pids"))
        server.kill()
    gone(pid)
    (tmp_path / "go").touch()
    with by_hand(database(tmp_path)) as db:  # as if the two minutes of the lease had passed
        assert db.execute("update task set lease_until = lease_until - 120000 where state = 'leased'").rowcount == 1
    with serving(tmp_path) as heir:
        run = heir.ended(run_id)
        assert [one["ended"] for one in run["attempts"]] == ["expired", "completed"]
    lawful(tmp_path)


def when(path: Path) -> str:
    """What a file says once it is there with a whole line."""
    ends = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < ends, path
        time.sleep(0.01)
    return path.read_text()


def gone(pid: int) -> None:
    """Waits until a process that is not our child is no more."""
    ends = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < ends:
            os.kill(pid, 0)
            time.sleep(0.01)
        raise AssertionError(f"{pid} lives")


@pytest.mark.stores("sqlite")
def test_a_store_that_cannot_write_says_so_and_readiness_too(tmp_path: Path) -> None:
    """The disk is full, as far as this process can tell: no file of it may grow over 512 KiB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * KIB, 512 * KIB))

    accepted = []
    with Server(tmp_path, "--slots", "0", preexec=limit) as server:
        for n in range(100):
            answer = server.ask("POST", "/events", as_bytes({"id": f"e{n}", "type": "x", "payload": "x" * 50_000}))
            if answer.status != 202:
                break
            accepted.append(f"e{n}")
        assert answer.error(503, "unavailable")["hint"]
        assert "cannot write" in server.ask("GET", "/healthz").error(503, "unavailable")["error"]
        server.ask("POST", "/events", as_bytes({"id": "one more", "type": "x"})).error(503, "unavailable")
    with serving(tmp_path) as heir:  # with room again: what was accepted is there, and nothing else
        assert accepted
        assert {event["id"] for event in heir.get("/events?limit=500")["events"]} == set(accepted)
        assert heir.send("one more", type_="x")["status"] == "accepted"
    lawful(tmp_path)


def test_a_queue_that_is_full_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """With room for one command, some of a burst are told to come again; who does is accepted."""
    with serving(tmp_path, "--slots", "0", STEPWELL_QUEUE_COMMANDS="1") as server, ThreadPoolExecutor(16) as pool:

        def send(n: int) -> int:
            for tries in range(1, 200):
                answer = server.ask("POST", "/events", as_bytes({"id": f"e{n}", "type": "x"}))
                if answer.status == 202:
                    return tries
                answer.error(503, "unavailable")
            raise AssertionError("never accepted")

        assert sum(pool.map(send, range(100))) > 100
        assert len(server.get("/events?limit=500")["events"]) == 100


def test_broken_flows_are_reported_at_the_start_and_others_run(tmp_path: Path) -> None:
    """Fault 2: one broken flow stopped them all."""
    flow(tmp_path, "good")
    (flow(tmp_path, "bad") / "flow.toml").write_text("name = ")
    with serving(tmp_path) as server:
        (run_id,) = server.send("e")["runIds"]
        assert server.ended(run_id)["status"] == "completed"
        assert "bad/flow.toml" in server.log.read_text()

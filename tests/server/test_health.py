"""`/healthz`, `/readyz`, `/metrics`."""

import http.client
import resource
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stepwell.model.settings import KIB
from tests.server.support import OK, PATIENCE_S, Server, as_bytes, database, flow, serving


def samples(server: Server) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of a scrape by name and label values."""
    answer = server.ask("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = text_string_to_metric_families(answer.body.decode())
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def test_a_server_that_can_work_is_ready(server: Server) -> None:
    assert server.ask("GET", "/readyz").json() == {"ok": True, "worker": {"slots": 4, "busy": 0}}


def test_a_server_without_a_worker_is_ready_to_accept(tmp_path: Path) -> None:
    with serving(tmp_path, "--slots", "0") as front:
        assert front.ask("GET", "/readyz").json() == {"ok": True, "worker": None}


@pytest.mark.stores("sqlite")
def test_a_store_that_cannot_write_is_not_ready(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * KIB, 512 * KIB))

    with Server(tmp_path, "--slots", "0", preexec=limit) as server:
        for n in range(100):
            body = as_bytes({"id": f"e{n}", "type": "x", "payload": "x" * 50_000})
            if server.ask("POST", "/events", body).status != 202:
                break
        refused = server.ask("GET", "/readyz").error(503, "unavailable")
        assert any("cannot write" in reason for reason in refused["reasons"])
        assert str(tmp_path) not in str(refused)
        assert samples(server)["stepwell_lane_up", ()] == 0


def spoil(path: Path) -> None:
    """Leaves nothing legible, last of all the index of the log: until then, pages that are known by heart are good."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with path.with_name(name).open("r+b") as file:  # not cut short, since processes have it in their memory
            file.write(b"\xff" * path.with_name(name).stat().st_size)


@pytest.mark.stores("sqlite")
def test_a_store_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    """It is no bug and not for ever: 503 with the reason, not ready, and a stream ends without an end."""
    flow(tmp_path, steps={"go": "echo begun; exec sleep 60"})
    with Server(tmp_path, STEPWELL_POLL_MS="100") as server:
        (run_id,) = server.send("e")["runIds"]
        server.until(run_id, lambda run: "begun" in run.get("stdout", ""))
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", f"/runs/{run_id}/output?stream=1")
            following = connection.getresponse()
            assert following.readline() == b": following\n"
            spoil(database(tmp_path))
            assert b"event: end" not in following.read()
        for target in ("/events", "/runs", f"/runs/{run_id}", f"/runs/{run_id}/output?stream=1", "/readyz"):
            refused = server.ask("GET", target).error(503, "unavailable")
            assert "the store cannot" in refused["error"]  # be read, or write, whatever was seen first
            assert str(tmp_path) not in str(refused)
        found = samples(server)
        assert found["stepwell_http_waits", ()] == 0, "what is known without the store is told all the same"
        assert ("stepwell_runs", ("running",)) not in found


def test_metrics_count_what_happens(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": "exec sleep 60"})
    flow(tmp_path, "quick", {"go": OK}, "quick")
    with serving(tmp_path, "--drain", "0.1") as server:
        (run_id,) = server.send("e")["runIds"]
        server.until(run_id, lambda run: run["status"] == "running")
        (done,) = server.send("q", type_="quick")["runIds"]
        server.ended(done)
        server.ask("GET", "/nope")
        server.ask("BREW", "/nope")
        found = samples(server)
        assert found["stepwell_runs", ("running",)] == 1
        assert found["stepwell_tasks", ("leased",)] == 1
        assert (found["stepwell_worker_slots", ()], found["stepwell_worker_busy", ()]) == (4, 1)
        assert found["stepwell_http_requests_total", ("POST", "/events", "202")] == 2
        assert found["stepwell_http_requests_total", ("GET", "none", "404")] == 1
        assert found["stepwell_lane_commands_total", ()] > 2
        assert found["stepwell_lane_up", ()] == 1
        again = samples(server)
        assert again["stepwell_http_requests_total", ("GET", "/metrics", "200")] == 1
        assert not any(run_id in "".join(labels) for _, labels in again)

"""Two servers on one database, and a command line beside a server: one house with several doors."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.support import OK, PATIENCE_S, Json, as_bytes, at_home, database, flow, lawful, serving, stepwell
from tests.support import on_postgres
from tests.support.nursery import run

pytestmark = pytest.mark.stores("sqlite", "postgres")


def cli(cwd: Path, *args: str) -> Json:
    """What a command prints with --json, which must end well."""
    command = stepwell(*args, "--cwd", str(cwd), "--json")
    done = run(command, env=at_home(cwd), timeout=PATIENCE_S)
    assert done.returncode == 0, done
    found: Json = json.loads(done.stdout)
    return found


def test_each_server_sees_what_the_other_does(tmp_path: Path) -> None:
    flow(tmp_path)
    with serving(tmp_path, "--slots", "0") as front, serving(tmp_path) as back:
        run_ids = [front.send(f"e{n}")["runIds"][0] for n in range(10)]
        assert [front.ended(run_id)["status"] for run_id in run_ids] == ["completed"] * 10
        assert back.get("/events?limit=100")["events"] == front.get("/events?limit=100")["events"]
        assert back.send("e0") == {"status": "duplicate", "eventId": "e0", "runIds": run_ids[:1], "matched": 0}
        back.ask("POST", "/events", as_bytes({"id": "e0", "type": "demo", "payload": 1})).error(409, "conflict")
    lawful(tmp_path)


def test_work_of_another_process_is_begun_without_waiting_for_the_poll(tmp_path: Path) -> None:
    """The poll is a minute; what tells is the file itself."""
    flow(tmp_path)
    slow = {"STEPWELL_POLL_MS": "60000"}
    with serving(tmp_path, "--slots", "0", **slow) as front, serving(tmp_path, **slow) as back:
        for n in range(5):
            started = time.monotonic()
            (run_id,) = front.send(f"e{n}")["runIds"]
            assert back.ended(run_id)["status"] == "completed"
            assert time.monotonic() - started < 5


def test_two_workers_in_two_processes_do_each_step_once(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f'echo "$CODEX_FLOW_EVENT_ID" >> {tmp_path}/log; sleep 0.05; {OK}'})
    with serving(tmp_path, "--slots", "3") as one, serving(tmp_path, "--slots", "3") as two:
        run_ids = [(one, two)[n % 2].send(f"e{n}")["runIds"][0] for n in range(40)]
        runs = [one.ended(run_id) for run_id in run_ids]
        assert {run["status"] for run in runs} == {"completed"}
        assert {len(run["attempts"]) for run in runs} == {1}
        assert len({run["attempts"][0]["worker"] for run in runs}) == 2
        assert sorted((tmp_path / "log").read_text().split()) == sorted(f"e{n}" for n in range(40))
    lawful(tmp_path)


def test_one_limit_holds_over_two_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    root = flow(tmp_path, steps={"go": f"printf + >> {log}; sleep 0.1; printf - >> {log}; {OK}"})
    manifest = root / "flow.toml"
    limit = '\n[steps.concurrency]\nkey = "/type"\nlimit = 1\n'
    manifest.write_text(manifest.read_text() + limit)
    with serving(tmp_path) as one, serving(tmp_path) as two:
        run_ids = [(one, two)[n % 2].send(f"e{n}")["runIds"][0] for n in range(8)]
        for run_id in run_ids:
            assert two.ended(run_id)["status"] == "completed"
    assert log.read_text() == "+-" * 8
    lawful(tmp_path)


def test_a_changed_flow_is_matched_by_both(tmp_path: Path) -> None:
    """Each server matches against the manifests that the other may have changed: nothing is matched on old ones."""
    flow(tmp_path)
    with serving(tmp_path, "--slots", "0") as one, serving(tmp_path, "--slots", "0") as two:
        assert (one.send("e1")["matched"], two.send("e2")["matched"]) == (1, 1)
        flow(tmp_path, steps={"go": OK, "more": OK})
        time.sleep(0.1)
        assert (two.send("e3")["matched"], one.send("e4")["matched"]) == (2, 2)
        flow(tmp_path)
        time.sleep(0.1)
        assert (one.send("e5")["matched"], two.send("e6")["matched"]) == (1, 1)
        flow(tmp_path, steps={"go": OK, "more": OK})
        time.sleep(0.1)
        assert two.send("e7")["matched"] == 2
        flow(tmp_path)  # back to what `one` knows, which has seen nothing of the change in between
        time.sleep(0.1)
        assert one.send("e8")["matched"] == 1
    lawful(tmp_path)


def test_a_command_beside_a_server_has_its_work_done_there(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f"sleep 0.2; {OK}"})
    event = tmp_path / "event.json"
    event.write_text('{"id":"from the command line","type":"demo"}')
    with serving(tmp_path) as server:
        told = cli(tmp_path, "events", "dispatch", "--event", str(event), "--wait")
        (run,) = told["runs"]
        assert (told["status"], run["status"]) == ("accepted", "completed")
        assert server.get(f"/runs/{run['id']}")["run"]["result"] == {"status": "completed"}
        again = cli(tmp_path, "events", "replay", "from the command line", "--wait")
        assert again["runs"][0]["replay"] == 1
        found: list[Any] = cli(tmp_path, "runs", "list")["runs"]
        assert len(found) == len(server.get("/runs")["runs"]) == 2
        assert cli(tmp_path, "doctor")["ok"]
    assert database(tmp_path).exists() is not on_postgres()


def test_a_cancel_from_the_command_line_ends_the_process_in_the_server(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": "exec sleep 60"})
    with serving(tmp_path) as server:
        (run_id,) = server.send("e")["runIds"]
        server.until(run_id, lambda run: run["status"] == "running")
        assert cli(tmp_path, "runs", "cancel", run_id, "--reason", "enough")["status"] == "running"
        run = server.ended(run_id)
        assert run["status"] == "canceled"
        requested = next(entry for entry in run["journal"] if entry["kind"] == "cancel.requested")
        assert requested["data"] == {"by": "cli", "reason": "enough"}
        assert cli(tmp_path, "runs", "retry", run_id)["generation"] == 2
        server.until(run_id, lambda run: run["status"] == "running" and run["generation"] == 2)
        assert cli(tmp_path, "runs", "cancel", run_id, "--now")["status"] == "canceled"
    lawful(tmp_path)

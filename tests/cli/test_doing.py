"""Commands that do something: what they print, what they leave, and how they end."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.support import OK, PATIENCE_S, Shop, flow, write_event
from tests.server.support import lawful, serving


def test_fire_runs_what_matches_and_says_what_it_says(shop: Shop) -> None:
    flow(shop.cwd, "deaf", type_="other")
    text = shop.text("flow", "fire", "--event", write_event(shop.cwd, "e1"))
    assert text.splitlines()[0] == "event e1: accepted, 1 runs"
    assert {"demo/go | working", "demo/go ! badly", "demo/go completed"} <= set(text.splitlines())
    again = shop.text("flow", "fire", "--event", write_event(shop.cwd, "e1"))
    assert again.splitlines()[0] == "event e1: duplicate, 1 runs"
    assert len(shop.json("runs", "list")["runs"]) == 1
    lawful(shop.cwd)


def test_fire_with_json_is_one_document(shop: Shop) -> None:
    (result,) = shop.fire("e1")
    assert set(result) == {"flow", "step", "runId", "eventId", "status", "result"}
    assert (result["flow"], result["step"], result["result"]) == ("demo", "go", {"status": "completed"})


def test_fire_takes_standard_input_and_gives_an_id(shop: Shop) -> None:
    text = shop.text("flow", "fire", "--event", "-", "--slots", "1", stdin='{"type":"demo"}')
    event_id = text.split()[1].rstrip(":")
    assert event_id.startswith("evt_")
    assert shop.json("events", "show", event_id)["runs"][0]["status"] == "completed"


def test_fire_ends_with_1_when_a_run_does_not_complete(tmp_path: Path) -> None:
    flow(tmp_path, steps={"good": OK, "bad": "exit 3"})
    results = {one["step"]: one for one in Shop(tmp_path).fire(code=1)}
    assert (results["good"]["status"], results["bad"]["status"]) == ("completed", "failed")
    assert results["bad"]["failure"]["type"] == "exit"


def test_an_event_that_nothing_matches_is_accepted(shop: Shop) -> None:
    assert shop.fire("e", type_="nobody") == []
    assert shop.json("events", "list")["events"][0]["matched"] == 0


def test_run_does_one_step_whatever_its_trigger_says(shop: Shop) -> None:
    path = write_event(shop.cwd, "e1", type_="something else")
    assert shop.json("flow", "run", "demo", "go", "--event", path)["results"][0]["status"] == "completed"
    assert "demo/go completed" in shop.text("flow", "run", "demo", "go", "--event", path)
    assert [run.get("replay") for run in shop.json("runs", "list")["runs"]] == [1, None]
    lawful(shop.cwd)


@pytest.mark.stores("sqlite")
def test_dispatch_leaves_the_work_to_a_server(shop: Shop) -> None:
    with serving(shop.cwd, "--slots", "0"):
        told = shop.json("events", "dispatch", "--event", write_event(shop.cwd, "e1"))
        assert (told["status"], told["matched"], len(told["runIds"])) == ("accepted", 1, 1)
        text = shop.text("events", "dispatch", "--event", write_event(shop.cwd, "e2"))
        assert text.splitlines()[0] == "event e2: accepted, 1 runs"
        assert text.splitlines()[1].startswith("  run_")
        done = shop.call("events", "replay", "e1", "--wait", "--timeout", "0.3", "--no-json")
        assert (done.returncode, done.stdout) == (1, "demo/go queued\n")
        assert "have not ended within 0.3 s" in done.stderr
        assert "stepwell serve" in done.stderr
    assert {run["status"] for run in shop.json("runs", "list")["runs"]} == {"queued"}


def test_wait_follows_to_the_end_and_answers_with_it(tmp_path: Path) -> None:
    flow(tmp_path, steps={"good": f"sleep 0.3; {OK}"}, type_="good")
    flow(tmp_path, "worse", {"bad": "exit 3"}, type_="bad")
    shop = Shop(tmp_path)
    with serving(tmp_path):
        path = write_event(tmp_path, "e1", type_="good")
        assert "demo/good completed" in shop.text("events", "dispatch", "--event", path, "--wait")
        path = write_event(tmp_path, "e2", type_="bad")
        told = shop.json("events", "dispatch", "--event", path, "--wait", code=1)
        assert (told["status"], told["runs"][0]["status"]) == ("accepted", "failed")


def test_replay_chooses_steps(tmp_path: Path) -> None:
    flow(tmp_path, "a", {"one": OK, "two": OK})
    flow(tmp_path, "b", {"one": OK})
    shop = Shop(tmp_path)
    shop.fire("e1")
    for steps, matched in (((), 3), (("a/two", "b"), 2), (("a", "a/one"), 2)):
        chosen = [part for step in steps for part in ("--step", step)]
        assert shop.json("events", "replay", "e1", *chosen)["matched"] == matched
    for wrong in ("a/three", "two"):
        assert "a/one, a/two, b/one" in shop.refused("events", "replay", "e1", "--step", "a", "--step", wrong)
    lawful(tmp_path)


def test_replay_chooses_flows(tmp_path: Path) -> None:
    """`--flow` and `--step` add up."""
    flow(tmp_path, "a", {"one": OK, "two": OK})
    flow(tmp_path, "b", {"one": OK, "two": OK})
    shop = Shop(tmp_path)
    shop.fire("e1")
    for args, names in (
        (("--flow", "a"), {"a/one", "a/two"}),
        (("--flow", "a", "--flow", "b"), {"a/one", "a/two", "b/one", "b/two"}),
        (("--flow", "a", "--step", "b/two"), {"a/one", "a/two", "b/two"}),
    ):
        ids = shop.json("events", "replay", "e1", *args)["runIds"]
        assert {shop.json("runs", "show", run_id)["run"]["name"] for run_id in ids} == names
    assert "a/one, a/two, b/one, b/two" in shop.refused("events", "replay", "e1", "--flow", "c")


def test_an_event_tells_what_sent_it_and_a_run_what_it_sent(tmp_path: Path) -> None:
    send = """echo 'FLOW_RESULT {"status":"changed","next":[{"id":"%s","type":"%s"}]}'"""
    flow(tmp_path, "first", {"go": send % ("e2", "second")}, type_="first")
    flow(tmp_path, "second", {"go": send % ("e3", "third")}, type_="second")
    shop = Shop(tmp_path)
    results = shop.fire("e1", type_="first")
    run_id, second = results[0]["runId"], results[1]["runId"]
    assert [one["eventId"] for one in results] == ["e1", "e2"]
    assert shop.json("runs", "show", run_id)["run"]["nextEventIds"] == ["e2"]
    shown = shop.json("events", "show", "e3")
    assert (shown["event"]["cause"], shown["event"]["depth"]) == (second, 2)
    assert shown["chain"] == [
        {"runId": second, "step": "second/go", "eventId": "e2"},
        {"runId": run_id, "step": "first/go", "eventId": "e1"},
    ]
    text = shop.text("events", "show", "e3")
    assert f"  sent by: run {run_id} of first/go for event e1\n" in text
    assert "chain" not in shop.json("events", "show", "e1")


def test_what_is_fired_is_followed_through_what_its_results_send(tmp_path: Path) -> None:
    """To the end, which fails here; an event that was there already is no part of it."""
    send = (
        """echo 'FLOW_RESULT {"status":"changed","next":[{"type":"%s"},{"id":"known","type":"%s","payload":null}]}'"""
    )
    flow(tmp_path, "first", {"go": send % ("second", "held")}, type_="first")
    flow(tmp_path, "second", {"a": send % ("third", "held"), "b": OK}, type_="second")
    flow(tmp_path, "third", {"go": "sleep 0.3; exit 3"}, type_="third")
    shop = Shop(tmp_path)
    shop.json("events", "dispatch", "--event", write_event(tmp_path, "known", type_="held"))
    results = shop.fire("e1", type_="first", code=1)
    assert [f"{one['flow']}/{one['step']}" for one in results] == ["first/go", "second/a", "second/b", "third/go"]
    assert [one["status"] for one in results] == ["completed", "completed", "completed", "failed"]
    assert "third/go failed" in shop.text("flow", "fire", "--event", write_event(tmp_path, "e2", type_="first"), code=1)


def test_a_chain_that_bites_its_tail_comes_to_an_end(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": """echo 'FLOW_RESULT {"status":"changed","next":[{"type":"demo"}]}'"""})
    done = Shop(tmp_path).call("flow", "fire", "--event", write_event(tmp_path), STEPWELL_EVENT_DEPTH="3")
    assert [one["status"] for one in json.loads(done.stdout)["results"]] == ["completed"] * 3 + ["failed"]
    assert done.returncode == 1


def test_output_by_pages_and_to_its_end(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f"echo one; sleep 0.3; echo two >&2; {OK}"})
    shop = Shop(tmp_path)
    run_id = shop.fire()[0]["runId"]
    whole = shop.json("runs", "output", run_id)
    assert "".join(one["text"] for one in whole["output"] if one["kind"] == "stdout").startswith("one\n")
    assert [one["n"] for one in shop.json("runs", "output", run_id, "--after", "1")["output"]] == [
        one["n"] for one in whole["output"][1:]
    ]
    text = shop.text("runs", "output", run_id)
    assert text.splitlines() == ["one", "two", 'FLOW_RESULT {"status":"completed"}']
    followed = shop.text("runs", "output", run_id, "--follow", "--after", "1")
    assert followed.splitlines() == ["demo/go ! two", "demo/go completed"]


def test_cancel_and_retry(shop: Shop) -> None:
    with serving(shop.cwd, "--slots", "0"):
        (run_id,) = shop.json("events", "dispatch", "--event", write_event(shop.cwd))["runIds"]
    open_ = shop.refused("runs", "retry", run_id)
    assert "queued" in open_
    assert shop.text("runs", "cancel", run_id) == f"{run_id}: canceled, generation 1\n"
    assert "canceled" in shop.refused("runs", "cancel", run_id)
    assert shop.json("runs", "retry", run_id) == {"runId": run_id, "status": "queued", "generation": 2}
    assert shop.json("runs", "cancel", run_id, "--now", "--reason", "no")["status"] == "canceled"
    assert shop.text("runs", "retry", run_id) == f"{run_id}: queued, generation 3\n"
    shop.fire("another")  # whoever runs steps here does this one, too
    assert shop.json("runs", "show", run_id)["run"]["status"] == "completed"
    lawful(shop.cwd)


def interrupted(shop: Shop, *args: str) -> tuple[int, str]:
    """Exit code and errors of a command that gets Ctrl-C once its step runs."""
    process = shop.start(*args)
    ends = time.monotonic() + PATIENCE_S
    while not (shop.cwd / "pid").exists() or not (shop.cwd / "pid").read_text().endswith("\n"):
        assert time.monotonic() < ends
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    return process.returncode, err


def test_ctrl_c_ends_the_step_hands_it_back_and_exits_with_130(shop: Shop) -> None:
    flow(shop.cwd, steps={"go": f"echo $$ > {shop.cwd}/pid; exec sleep 60"})
    code, err = interrupted(shop, "flow", "fire", "--event", write_event(shop.cwd))
    assert (code, err.strip()) == (130, "interrupted")
    with pytest.raises(ProcessLookupError):
        os.kill(int((shop.cwd / "pid").read_text()), 0)
    (run,) = shop.json("runs", "list")["runs"]
    view = shop.json("runs", "show", run["id"])["run"]
    assert (view["status"], view["attempts"][0]["ended"]) == ("queued", "released")
    lawful(shop.cwd)


def test_ctrl_c_while_watching_leaves_the_run_alone(shop: Shop) -> None:
    flow(shop.cwd, steps={"go": f"sleep 0.5; echo $$ > {shop.cwd}/pid; sleep 1; {OK}"})
    with serving(shop.cwd) as server:
        (run_id,) = server.send("e")["runIds"]
        assert interrupted(shop, "runs", "watch", run_id)[0] == 130
        assert server.ended(run_id)["status"] == "completed"


@pytest.mark.stores("sqlite")
def test_places_by_option_and_by_environment(tmp_path: Path) -> None:
    flows, data = tmp_path / "flows here", tmp_path / "data"
    flows.mkdir()
    flow(flows)
    shop = Shop(tmp_path)
    path = write_event(tmp_path, "e1")
    shop.text("flow", "fire", "--event", path, "--cwd", str(flows), "--data-dir", str(data))
    assert (data / "stepwell.sqlite").exists()
    database = str(data / "stepwell.sqlite")
    places: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["--data-dir", "data"], {}),
        (["--db", database], {}),
        (["--db", f"sqlite:///{database}"], {}),
        (["--db", "sqlite:///data/stepwell.sqlite"], {}),
        ([], {"STEPWELL_DB": database}),
        ([], {"STEPWELL_DATA_DIR": str(data), "STEPWELL_CWD": str(flows)}),
    )
    for args, env in places:
        done = shop.call("events", "list", "--json", *args, **env)
        assert [one["id"] for one in json.loads(done.stdout)["events"]] == ["e1"], done


def test_the_server_is_a_command_too(shop: Shop) -> None:
    """Its first line says where, for whoever started it with port 0; the environment has its options as well."""
    with serving(shop.cwd, STEPWELL_SLOTS="2") as server:
        assert json.dumps(server.get("/healthz")) == '{"ok": true}'

"""Commands that look: for people and as JSON."""

import json
import unicodedata
from pathlib import Path

import pytest

from stepwell.cli.common import print_table
from tests.cli.conftest import NASTY
from tests.cli.support import Shop, flow


def run_of(seen: Shop, event_id: str) -> str:
    (run,) = seen.json("runs", "list", "--event-id", event_id)["runs"]
    run_id: str = run["id"]
    return run_id


def test_flow_list(seen: Shop) -> None:
    lines = seen.text("flow", "list").splitlines()
    assert lines[0].split() == ["FLOW", "VERSION", "STEPS", "FOLDER"]
    assert [line.split() for line in lines[1:]] == [
        [name, "1", "go", str(seen.cwd / "flows" / name)] for name in ("bad", "good", "ugly")
    ]
    found = seen.json("flow", "list")
    assert [one["name"] for one in found["flows"]] == ["bad", "good", "ugly"]
    assert found["flows"][1]["steps"][0]["trigger"] == {"type": "good", "schema": None}
    assert (found["problems"], found["shadowed"]) == ([], [])


def test_a_broken_flow_is_told_by_name_and_others_work(shop: Shop) -> None:
    """Fault 2."""
    (flow(shop.cwd, "worse") / "flow.toml").write_text('name = "worse"\nversion = "1"\nsteps = 3\nkolor = 1\n')
    done = shop.call("flow", "list", "--no-json")
    assert (done.returncode, "demo" in done.stdout) == (1, True)
    assert "worse/flow.toml" in done.stderr
    assert "hint:" in done.stderr
    (problem,) = shop.json("flow", "list", code=1)["problems"]
    assert problem["path"].endswith("worse/flow.toml")
    for key in ("version", "steps", "kolor"):
        assert key in problem["reason"]
    assert shop.fire()[0]["status"] == "completed"


def test_events_list_and_show(seen: Shop) -> None:
    lines = seen.text("events", "list").splitlines()
    assert lines[0].split() == ["EVENT", "TYPE", "ACCEPTED", "RUNS"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["ugly one", "bad one", "good one"]
    found = seen.json("events", "list", "--type", "good", "--limit", "5")["events"]
    assert [(one["id"], one["payload"], one["matched"]) for one in found] == [("good one", {"n": 1}, 1)]
    assert len(seen.json("events", "list", "--limit", "2")["events"]) == 2
    shown = seen.json("events", "show", "good one")
    assert (shown["event"]["id"], shown["runs"][0]["status"]) == ("good one", "completed")
    text = seen.text("events", "show", "bad one")
    assert text.startswith("bad one  bad\n")
    assert "bad/go" in text
    assert "failed" in text


def test_runs_list_with_each_filter(seen: Shop) -> None:
    def names(*args: str) -> list[str]:
        return [run["name"] for run in seen.json("runs", "list", *args)["runs"]]

    assert names() == ["ugly/go", "bad/go", "good/go"]
    assert names("--status", "completed") == ["ugly/go", "good/go"]
    assert names("--status", "queued") == []
    assert names("--result-status", "blocked") == ["ugly/go"]
    assert names("--attention") == ["ugly/go"]
    assert names("--event-id", "bad one") == ["bad/go"]
    assert names("--name", "good/go", "--limit", "1") == ["good/go"]
    lines = seen.text("runs", "list").splitlines()
    assert lines[0].split() == ["RUN", "NAME", "STATUS", "CREATED", "EVENT"]
    assert "completed (blocked)" in lines[1]
    assert seen.text("runs", "list", "--status", "queued") == "no runs\n"


def test_runs_show(seen: Shop) -> None:
    run_id = run_of(seen, "bad one")
    run = seen.json("runs", "show", run_id)["run"]
    assert (run["status"], run["eventId"], run["failure"]["exitCode"], run["why"]) == (
        "failed", "bad one", 3, "ended: failed",
    )  # fmt: skip
    assert [entry["kind"] for entry in run["journal"]] == ["run.created", "attempt.started", "run.failed"]
    assert run["output"][0]["text"] == "broken\n"
    text = seen.text("runs", "show", run_id)
    for part in (run_id, "bad/go", "failed", "run.failed", "1! broken", "the step exited with 3"):
        assert part in text


def test_runs_watch_tells_what_was_said_and_how_it_ended(seen: Shop) -> None:
    good, bad = run_of(seen, "good one"), run_of(seen, "bad one")
    text = seen.text("runs", "watch", good)
    assert text.splitlines() == ["good/go | working", "good/go completed"]
    both = seen.text("runs", "watch", good, bad, code=1)
    assert "bad/go ! broken" in both
    assert "good/go completed" in both


def test_doctor(seen: Shop) -> None:
    found = seen.json("doctor")
    assert (found["ok"], found["offences"]) == (True, [])
    assert (found["checked"]["runs"], found["checked"]["events"]) == (3, 3)
    text = seen.text("doctor")
    assert "checked 3 runs" in text
    assert text.count("holds") == 9


def test_a_doctor_that_finds_something_names_it_and_ends_with_1(shop: Shop) -> None:
    from tests.server.support import database
    from tests.support import by_hand

    (result,) = shop.fire()
    with by_hand(database(shop.cwd)) as db:
        db.execute("delete from entry where seq = 2")
    found = shop.json("doctor", code=1)
    assert not found["ok"]
    assert result["runId"] in {one["who"] for one in found["offences"]}
    text = shop.text("doctor", code=1)
    assert "broken" in text
    assert result["runId"] in text


@pytest.mark.parametrize(
    "args", [["events", "show", "ugly one"], ["events", "list", "--json"], ["runs", "show"], ["runs", "watch"]]
)
def test_nothing_that_a_step_or_a_sender_says_can_move_the_cursor(seen: Shop, args: list[str]) -> None:
    """Neither on a terminal nor in a pipe that ends at one."""
    if args[0] == "runs":
        args = [*args, run_of(seen, "ugly one")]
    text = seen.ok(*args) if "--json" in args else seen.text(*args)
    assert "red" in text
    assert "title" in text
    bad = [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf")]
    assert bad == []
    if "--json" in args:
        assert json.loads(text)["events"][0]["payload"]["text"] == NASTY


def test_a_folder_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    root = tmp_path / "flows" / "\x1b[2Jx"
    root.mkdir(parents=True)
    (root / "flow.toml").write_text("")
    done = Shop(tmp_path).call("flow", "list", "--no-json")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def test_a_page_without_rows_says_where_the_list_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("RUN",), [], empty="no runs", cursor=7)
    said = capsys.readouterr()
    assert said.out == "no runs\n"
    assert "--cursor 7" in said.err

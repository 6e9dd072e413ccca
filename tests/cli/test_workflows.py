"""Steps that are workflows, on the command line: accepted, told, compared with an app, and never waited for."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import OK, Shop, flow, write_event
from tests.server.support import environ

STEP = """
[[steps]]
name = "look"
runner = "workflow"
workflow = "ci:review"
[steps.trigger]
type = "demo"
"""


APP = """
from stepwell.workflow.app import App
from stepwell.workflow.context import Context

app = App("ci")


@app.workflow
async def NAME(ctx: Context) -> None: ...
"""


def with_workflow(cwd: Path) -> Shop:
    """A folder whose flow has a step and a workflow, both on events of type demo."""
    path = flow(cwd, steps={"go": OK}) / "flow.toml"
    path.write_text(path.read_text() + STEP)
    return Shop(cwd)


def test_fire_runs_the_steps_and_leaves_the_workflows_to_their_app(tmp_path: Path) -> None:
    shop = with_workflow(tmp_path)
    (tmp_path / "event.json").write_text('{"id": "e", "type": "demo"}')
    told = shop.text("flow", "fire", "--event", "event.json")
    assert "demo/go completed" in told
    assert "ci:review is queued: a worker of its app runs it; see `stepwell runs show run_" in told
    again = shop.json("flow", "fire", "--event", "event.json")
    assert [(one["flow"], one["step"]) for one in again["results"]] == [("demo", "go")]
    (run,) = again["workflows"]
    assert (run["name"], run["status"]) == ("ci:review", "queued")
    alone = shop.json("flow", "run", "demo", "look", "--event", "event.json")
    assert (alone["results"], len(alone["workflows"])) == ([], 1)


@pytest.mark.parametrize("args", [("codex-flow", "fire"), ("codex-flow-systemd-local", "dispatch", "--wait")])
def test_the_programs_of_the_seed_say_that_they_cannot_run_it(tmp_path: Path, args: tuple[str, ...]) -> None:
    shop = with_workflow(tmp_path)
    command = [sys.executable, "-m", "stepwell.cli.seed", *args, "--event", write_event(shop.cwd)]
    done = subprocess.run(command, cwd=shop.cwd, env=environ(), text=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ci:review is a workflow of an app: it cannot be run here" in done.stderr
    assert "stepwell flow fire" in done.stderr


def test_event_and_run_name_each_other(tmp_path: Path) -> None:
    shop = with_workflow(tmp_path)
    shop.fire()
    shown = shop.json("events", "show", "e")
    assert sorted(run["name"] for run in shown["runs"]) == ["ci:review", "demo/go"]
    (run,) = (run for run in shown["runs"] if run["kind"] == "workflow")
    assert (run["flowName"], run["stepName"]) == ("demo", "look")
    assert "ci:review" in shop.text("events", "show", "e")
    assert shop.json("runs", "show", run["id"])["run"]["eventId"] == "e"
    assert "event: e" in shop.text("runs", "show", run["id"])
    replayed = shop.json("events", "replay", "e", "--step", "demo/look")
    assert (replayed["matched"], len(shop.json("events", "show", "e")["runs"])) == (1, 3)


def test_check_compares_with_the_app_that_it_is_given(tmp_path: Path) -> None:
    shop = with_workflow(tmp_path)
    assert shop.json("flow", "check", "--strict")["diagnostics"] == [], "without an app nothing is known of workflows"
    for name in ("review", "other"):
        (tmp_path / f"{name}_app.py").write_text(APP.replace("NAME", name))
    shop.ok("flow", "check", "--app", "review_app:app")
    told = shop.text("flow", "check", "--app", "other_app:app", code=1)
    assert "flow.toml: steps[1].workflow: look: the app has no workflow 'ci:review'\n  hint: " in told

"""Workflows from the command line: --app, start, signal, what came of a run, and what is completed."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.cli.app import load_app
from stepwell.model.errors import Invalid
from tests.cli.support import PATIENCE_S, Shop, flow, program, shell_environ, write_event
from tests.server.support import store_of

APP = """
from dataclasses import dataclass
from stepwell import App, Context, Event, Signal, State

app = App("shop")
number = 7

@dataclass
class Decision:
    approved: bool
    by: str = "nobody"

approval = Signal("approval", Decision)
progress = State("progress", str)

@app.action
async def charge(order: str) -> str:
    if order == "bad":
        raise ValueError("no such order")
    return f"r-{order}"

@app.workflow
async def checkout(ctx: Context, order: str, note: str = "thanks") -> str:
    return f"{await ctx.call(charge, order)}, {note}"

@app.workflow
async def approve(ctx: Context, order: str) -> Decision:
    await ctx.set(progress, "waits")
    decision = await ctx.wait_for_signal(approval)
    await ctx.set(progress, "decided")
    return decision

@app.workflow(on="demo")
async def heard(ctx: Context, event: Event[dict]) -> str:
    return event.id
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "kiosk.py").write_text(APP)
    return Shop(tmp_path)


@contextlib.contextmanager
def working(shop: Shop, *args: str) -> Iterator[str]:
    """A worker for the app; what it says of itself."""
    process = shop.start("worker", "--app", "kiosk:app", *args, STEPWELL_POLL_MS="100")
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, said) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_run_from_the_command_line_to_its_end(shop: Shop) -> None:
    with working(shop) as said:
        assert "app shop" in said
        started = shop.json("start", "checkout", "--input", '{"order": "tea"}', "--id", "o1")
        assert started == {"runId": "o1", "created": True}
        assert shop.text("runs", "result", "o1") == '"r-tea, thanks"\n'
        found = shop.json("runs", "result", "o1")
        assert (found["status"], found["result"], found["name"]) == ("completed", "r-tea, thanks", "shop:checkout")
        again = shop.json("start", "shop:checkout", "--input", '{"order": "tea"}', "--id", "o1")
        assert again == {"runId": "o1", "created": False}
        assert "o1: was there" in shop.text("start", "checkout", "--input", '{"order": "tea"}', "--id", "o1")
        done = shop.call("start", "checkout", "--input", '{"order": "bad"}', "--wait", "--no-json")
        assert (done.returncode, done.stderr) == (1, "no such order\n")
        failed = shop.json("runs", "list", "--status", "failed")["runs"][0]["id"]
        assert "no such order" in shop.call("runs", "result", failed, "--no-json").stderr
        assert shop.json("runs", "result", failed, code=1)["failure"]["type"] == "ValueError"


def test_an_approval_that_is_answered_from_the_command_line(shop: Shop) -> None:
    with working(shop):
        shop.json("start", "approve", "--input", '{"order": "tea"}', "--id", "a1", "--tag", "customer=c 1")
        assert "a1 has not ended" in shop.refused("runs", "result", "a1", "--timeout", "0.5")
        assert shop.json("runs", "state", "a1", "progress") == {"runId": "a1", "name": "progress", "value": "waits"}
        assert "approve" in shop.text("runs", "show", "a1")
        tagged = [shop.json("runs", "list", "--tag", tag)["runs"] for tag in ("customer=c 1", "customer=c")]
        assert [[run["id"] for run in runs] for runs in tagged] == [["a1"], []]
        assert "--tag customer=c-7" in shop.refused("runs", "list", "--tag", "x")
        sent = shop.json("signal", "a1", "approval", '{"approved": true, "by": "ann"}', "--key", "k")
        assert shop.json("signal", "a1", "approval", '{"approved": true, "by": "ann"}', "--key", "k") == sent
        assert shop.json("runs", "result", "a1")["result"] == {"approved": True, "by": "ann"}
        assert shop.text("runs", "state", "a1", "progress") == '"decided"\n'
        assert "a1 is completed" in shop.refused("signal", "a1", "approval")
        assert "has not said 'nothing'" in shop.refused("runs", "state", "a1", "nothing")
        lines = [json.loads(line) for line in shop.ok("runs", "journal", "a1", "--json").splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert lines[0]["data"]["tags"] == {"customer": "c 1"}
        some = shop.ok("runs", "journal", "a1", "--json", "--after", "2", "--key", "set:progress#1").splitlines()
        assert [json.loads(line)["data"]["value"] for line in some] == ["decided"]
        text = shop.text("runs", "journal", "a1")
        assert "signal.received" in text
        assert "name: approval" in text


def test_the_app_checks_arguments_before_anything_is_written(shop: Shop) -> None:
    with working(shop):
        pass
    app = ("--app", "kiosk:app")
    assert "needs order" in shop.refused("start", "checkout", *app)
    assert "order" in shop.refused("start", "checkout", *app, "--input", '{"order": 7}')
    assert "no parameter not" in shop.refused("start", "checkout", *app, "--input", '{"order": "x", "not": ""}')
    assert "Did you mean shop:checkout" in shop.refused("start", "chekout")
    assert "shop:checkout" in shop.refused("start", "chekout", *app)
    assert "JSON object" in shop.refused("start", "checkout", "--input", "[1]")
    assert "not JSON" in shop.refused("start", "checkout", "--input", "{")
    assert "--tag customer=c-7" in shop.refused("start", "checkout", "--tag", "x", "--input", '{"order": "x"}')
    assert shop.json("runs", "list")["runs"] == []
    shop.call("start", "checkout", *app, "--input", '{"order": "x"}', "--id", "filled", "--json")
    (entry,) = [json.loads(line) for line in shop.ok("runs", "journal", "filled", "--json").splitlines()]
    assert entry["data"]["input"] == {"order": "x", "note": "thanks"}


def test_input_comes_from_a_file_or_stdin(shop: Shop) -> None:
    with working(shop):
        pass
    (shop.cwd / "input.json").write_text('{"order": "file"}')
    shop.json("start", "checkout", "--input", f"@{shop.cwd}/input.json", "--id", "f")
    shop.json("start", "checkout", "--input", "-", "--id", "s", stdin='{"order": "stdin"}')
    found = {run["id"]: shop.ok("runs", "journal", run["id"], "--json") for run in shop.json("runs", "list")["runs"]}
    assert '"order":"file"' in found["f"]
    assert '"order":"stdin"' in found["s"]
    assert "cannot read" in shop.refused("start", "checkout", "--input", "@nowhere.json")


def test_an_event_starts_the_workflow_of_an_app_in_the_server(shop: Shop) -> None:
    process = shop.start("serve", "--port", "0", "--app", "kiosk:app", STEPWELL_POLL_MS="100")
    try:
        assert process.stdout is not None
        assert "app shop" in process.stdout.readline()
        told = shop.json("events", "dispatch", "--event", write_event(shop.cwd, "e1", {}), "--wait")
        assert [run["result"] for run in told["runs"]] == ["e1"]
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kiosk", "MODULE:APP"),
        ("kiosk:", "MODULE:APP"),
        ("../kiosk:app", "MODULE:APP"),
        ("nowhere:app", "no module nowhere"),
        ("kiosk:number", "no App but int"),
        ("kiosk:nothing", "has no nothing"),
        ("broken:app", "ZeroDivisionError"),
        ("needs_more:app", "No module named 'nowhere_else'"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_said_clearly(
    shop: Shop, name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.cwd / "broken.py").write_text("1 / 0\n")
    (shop.cwd / "needs_more.py").write_text("import nowhere_else\n")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with pytest.raises(Invalid) as caught:
        load_app(name, shop.cwd)
    assert text in f"{caught.value} {caught.value.hint}"
    for module in ("kiosk", "broken", "needs_more"):
        __import__("sys").modules.pop(module, None)


def test_the_environment_names_the_app(shop: Shop) -> None:
    assert "no module nowhere" in shop.refused("worker", STEPWELL_APP="nowhere:app")


def complete(shop: Shop, *words: str) -> list[str]:
    """What Tab offers after these words."""
    env = shell_environ(**store_of(shop.cwd), _STEPWELL_COMPLETE="zsh_complete", COMP_CWORD=str(len(words)))
    env["COMP_WORDS"] = " ".join(("stepwell", *words))
    done = subprocess.run([program()], cwd=shop.cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    return [value.replace("\\:", ":") for value in done.stdout.split("\n")[1::3]]


@pytest.mark.stores("sqlite", "postgres")
def test_names_of_workflows_runs_signals_and_states_are_completed(shop: Shop) -> None:
    with working(shop):
        shop.json("start", "approve", "--input", '{"order": "tea"}', "--id", "a1")
        shop.call("runs", "result", "a1", "--timeout", "0.5")
        assert set(complete(shop, "start", "shop:")) == {"shop:approve", "shop:checkout", "shop:heard"}
        assert complete(shop, "runs", "state", "a1", "") == ["progress"]
        assert complete(shop, "signal", "") == ["a1"]
    assert complete(shop, "signal", "a1", "") == ["approval"]  # the worker has parked it


def test_flows_and_workflows_run_beside_each_other(shop: Shop) -> None:
    flow(shop.cwd)
    assert os.path.isdir(shop.cwd / "flows")  # noqa: PTH112 - says what `flow` makes
    with working(shop, "--slots", "2"):
        told = shop.json("events", "dispatch", "--event", write_event(shop.cwd, "e1", {}), "--wait")
        assert sorted(run["name"] for run in told["runs"]) == ["demo/go", "shop:heard"]
        assert {run["status"] for run in told["runs"]} == {"completed"}

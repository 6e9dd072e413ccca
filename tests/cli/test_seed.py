"""The seed's programs: their verbs, flags, messages and shapes (spec codex-flows 4.8; its faults 7 and 36)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import OK, PATIENCE_S, Shop, flow, write_event
from tests.cli.test_why import until
from tests.server.support import environ
from tests.support.nursery import Fork, run

BACKEND, RUNNER = "codex-flow-systemd-local", "codex-flow"
DATA = Path(".codex/flow-backend")


class Seed:
    """A program of the seed in a folder."""

    def __init__(self, cwd: Path, name: str = BACKEND) -> None:
        self.cwd, self._command = cwd, [sys.executable, "-m", "stepwell.cli.seed", name]

    def call(self, *args: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        done = run([*self._command, *args], cwd=self.cwd, env=environ(**env), stdin=stdin, timeout=PATIENCE_S)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *args: str, code: int = 0, **more: Any) -> Any:
        """What is printed, which is pretty JSON and a newline."""
        done = self.call(*args, **more)
        assert (done.returncode, done.stderr) == (code, ""), done
        value = json.loads(done.stdout)
        assert done.stdout == json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        return value

    def refused(self, *args: str, **more: Any) -> str:
        """The message; the line after it is our hint."""
        done = self.call(*args, **more)
        assert (done.returncode, done.stdout) == (1, ""), done
        message, hint = done.stderr.splitlines()
        assert hint.startswith("hint: ")
        return message

    @contextmanager
    def serving(self, *args: str, **env: str) -> Iterator[str]:
        """`serve` on a free port; gives its first line."""
        command = [*self._command, "serve", "--port", "0", *args]
        process = Fork(command, cwd=self.cwd, env=environ(**env), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    flow(tmp_path, steps={"go": f"echo working; {OK}"})
    return Seed(tmp_path)


def test_dispatch_without_wait_returns_at_once_and_harms_nothing(seed: Seed) -> None:
    """Fault 7: it closed the database under its step. Now the run is there, for whoever works."""
    accepted = seed.json("dispatch", "--event", write_event(seed.cwd, "e1"))
    (run_id,) = accepted["runIds"]
    assert accepted == {"status": "accepted", "eventId": "e1", "runIds": [run_id], "matched": 1}
    assert seed.json("show-run", run_id)["run"]["status"] == "queued"
    assert (seed.cwd / DATA / "stepwell.sqlite").exists()
    with seed.serving() as line:
        assert line.startswith("listening on http://127.0.0.1:")
        until(lambda: seed.json("show-run", run_id)["run"]["status"] == "completed")
    assert seed.json("dispatch", "--event", write_event(seed.cwd, "e1"))["status"] == "duplicate"


def test_dispatch_with_wait_runs_it_here_where_no_worker_lives(seed: Seed) -> None:
    """Fault 7: nobody waits for ever; also not when a worker lives that has another folder's flows."""
    told = seed.json("dispatch", "--wait", "--event", write_event(seed.cwd, "e1"))
    (run,) = told["runs"]
    assert (told["ended"], run["status"], run["eventId"]) == (True, "completed", "e1")
    (seed.cwd / "empty").mkdir()
    stranger = Seed(seed.cwd / "empty")
    with stranger.serving("--data-dir", str(seed.cwd / DATA)):
        assert seed.json("replay-event", "e1", "--wait")["runs"][0]["status"] == "completed"


def test_dispatch_with_wait_leaves_it_to_a_worker_that_lives(seed: Seed) -> None:
    with seed.serving():
        ids = [seed.json("dispatch", "--wait", "--event", write_event(seed.cwd, f"e{n}"))["runIds"][0] for n in (1, 2)]
        workers = {seed.json("run", run_id)["run"]["attempts"][0]["worker"] for run_id in ids}
    assert len(workers) == 1, "the server's, and not one of each command"


def test_ids_and_flags_are_taken_in_every_form(seed: Seed) -> None:
    """Fault 36: aliases took no ids, most flags no `=`, and the verb had to come first."""
    event = write_event(seed.cwd, "e1")
    (run_id,) = seed.json("dispatch", f"--event={event}", "--wait")["runIds"]
    for verb in ("show-run", "run"):
        for id_ in ((run_id,), ("--run-id", run_id), (f"--run-id={run_id}",)):
            assert seed.json(verb, *id_)["run"]["id"] == run_id
    for verb in ("show-event", "event"):
        shown = seed.json(verb, "e1")
        assert (shown["event"]["id"], [run["id"] for run in shown["runs"]]) == ("e1", [run_id])
    for verb in ("replay-event", "replay"):
        assert seed.json(verb, "e1")["matched"] == 1
    for verb in ("list-events", "events"):
        found = seed.json("--limit=5", verb, "--type", "demo", f"--cwd={seed.cwd}")["events"]
        assert [one["id"] for one in found] == ["e1"]
    for verb in ("list-runs", "runs"):
        assert len(seed.json(verb, "--event-id=e1")["runs"]) == 3
        assert [one["id"] for one in seed.json(verb, "--status=completed", "--limit", "0")["runs"]] == [run_id]
    first = seed.json("runs", "--limit", "1")
    assert len(seed.json("runs", f"--cursor={first['cursor']}", "--limit", "9999")["runs"]) == 2
    assert seed.json("list-events", "--type", "nobody") == {"events": []}
    assert seed.json("list-runs", "--event-id", "nobody") == {"runs": []}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bogus"], "Unknown command: bogus"),
        (["list-events", "--bogus"], "Unknown option: --bogus"),
        (["list-events", "--event", "x"], "Unknown option: --event"),
        (["list-events", "word"], "Unknown option: word"),
        (["list-runs", "--limit"], "--limit requires a value"),
        (["list-runs", "--limit", "many"], "limit must be a whole number, not 'many'"),
        (["list-runs", "--limit=-1"], "limit must be a whole number, not '-1'"),
        (["dispatch"], "dispatch requires --event <path>"),
        (["dispatch", "--event", "gone.json"], "cannot read gone.json: No such file or directory"),
        (["show-event"], "show-event requires <event-id>"),
        (["event", "nope"], "Unknown event: nope"),
        (["replay", "nope"], "Unknown event: nope"),
        (["replay-event"], "replay-event requires <event-id>"),
        (["run", "nope"], "Unknown run: nope"),
        (["show-run"], "show-run requires <run-id>"),
        (["list-runs", "--status", "done"], "run status must be queued, running, completed, or failed"),
        (["dispatch", "--event", "event.json", "--executor", "docker", "--wait"],
         "--executor must be direct or systemd-run"),
        (["serve", "--host", "0.0.0.0"],
         "without a secret there is no authentication, and the server does not listen on 0.0.0.0"),
        (["list-runs", "--cwd", "nowhere"], None),
    ],
)  # fmt: skip
def test_errors_are_the_seeds_words_and_a_hint(seed: Seed, args: list[str], says: str | None) -> None:
    write_event(seed.cwd)
    message = seed.refused(*args)
    assert says is None or message == says


@pytest.mark.parametrize("args", [[], ["help"], ["-h"], ["--help"], ["list-runs", "--help"]])
@pytest.mark.parametrize("name", [BACKEND, RUNNER])
def test_help(tmp_path: Path, name: str, args: list[str]) -> None:
    done = Seed(tmp_path, name).call(*args)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {name} COMMAND")
    for verb in ("serve", "dispatch --event FILE [--wait]", "show-run RUN"):
        assert f"  {verb}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_seeds_variables_are_read(seed: Seed) -> None:
    data = seed.cwd / "data"
    write_event(seed.cwd, "e1")
    more: dict[str, Any] = {"CODEX_FLOW_BACKEND_DATA_DIR": str(data), "CODEX_FLOW_RUNNER_PATH": "/no/effect"}
    seed.json("dispatch", "--event", "event.json", "--flow-runner", "/no/effect", **more)
    assert (data / "stepwell.sqlite").exists()
    assert not (seed.cwd / DATA).exists()
    message = seed.refused("dispatch", "--wait", "--event", "event.json", CODEX_FLOW_BACKEND_EXECUTOR="docker")
    assert message == "CODEX_FLOW_BACKEND_EXECUTOR must be direct or systemd-run"


# ── codex-flow ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def runner(tmp_path: Path) -> Seed:
    flow(tmp_path, steps={"go": f"echo working; {OK}"})
    return Seed(tmp_path, RUNNER)


def test_list_is_name_tab_root(runner: Seed) -> None:
    flow(runner.cwd, "other")
    done = runner.call("list")
    roots = runner.cwd / "flows"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"demo\t{roots}/demo\nother\t{roots}/other\n", "")
    assert runner.call("--cwd", str(runner.cwd), "list").stdout == done.stdout
    (roots / "demo/flow.toml").write_text("")
    broken = runner.call("list")
    assert (broken.returncode, broken.stdout) == (1, f"other\t{roots}/other\n")
    assert "demo/flow.toml" in broken.stderr


@pytest.mark.stores("sqlite")
def test_our_command_finds_the_data_of_the_seeds_program(tmp_path: Path) -> None:
    """They keep it elsewhere, and whoever moves over uses both."""
    Seed(tmp_path).json("list-events")
    shop = Shop(tmp_path)
    assert f"--data-dir {tmp_path / DATA}" in shop.refused("events", "list")
    assert shop.json("events", "list", "--data-dir", str(DATA)) == {"events": []}


def test_what_results_send_is_run_here_to_its_end(tmp_path: Path) -> None:
    """The original never dispatched `next` (fault 35): a wait here runs it too, since nobody else may."""
    backend = Seed(tmp_path)
    flow(tmp_path, "first", {"go": """echo 'FLOW_RESULT {"status":"changed","next":[{"type":"later"}]}'"""}, "first")
    flow(tmp_path, "later", {"go": f"sleep 0.3; {OK}"}, type_="later")
    path = write_event(tmp_path, "e", type_="first")
    fired = Seed(tmp_path, RUNNER).json("fire", "--event", path)
    assert [one["flow"] for one in fired["results"]] == ["first", "later"]
    assert len(backend.json("dispatch", "--event", path, "--wait")["runs"]) == 1
    assert [run["status"] for run in backend.json("list-runs")["runs"]] == ["completed", "completed"]


def test_fire_prints_the_results_of_all_steps(runner: Seed) -> None:
    """As often as it is called, whatever the body is: as in the seed, the runner keeps nothing."""
    result = {"flow": "demo", "step": "go", "result": {"status": "completed"}}
    for payload in (1, 1, 2):
        fired = runner.json("fire", "--event", write_event(runner.cwd, "e1", payload))
        assert fired == {"eventId": "e1", "results": [result]}
    assert runner.json("fire", "--event", write_event(runner.cwd, "e1", type_="nobody"))["results"] == []
    assert not (runner.cwd / DATA).exists()
    assert not (runner.cwd / ".stepwell").exists()


def test_run_prints_one_result_whatever_the_trigger_says(runner: Seed) -> None:
    event = write_event(runner.cwd, "e1", type_="another")
    assert runner.json("run", "demo", "go", "--event", event)["step"] == "go"
    blocked = """echo 'FLOW_RESULT {"status":"failed","message":"no"}'"""
    flow(runner.cwd, "says", steps={"no": blocked})
    assert runner.json("run", "says", "no", f"--event={event}")["result"] == {"status": "failed", "message": "no"}


def test_a_step_that_fails_is_told_on_stderr(runner: Seed) -> None:
    flow(runner.cwd, "bad", steps={"go": "echo broken >&2; exit 3", "dumb": "true"})
    done = runner.call("fire", "--event", write_event(runner.cwd, "e1"))
    assert done.returncode == 1
    assert [one["flow"] for one in json.loads(done.stdout)["results"]] == ["demo"]
    for text in ("flow step bad/go failed: the step exited with 3", "broken", "flow step bad/dumb failed: "):
        assert text in done.stderr.splitlines() or text in done.stderr
    done = runner.call("run", "bad", "go", "--event", "event.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "broken" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "nope", "go", "--event", "event.json"], "Unknown flow: nope"),
        (["run", "demo", "nope", "--event", "event.json"], "Unknown step nope in flow demo"),
        (["run", "demo", "--event", "event.json"], "run requires <flow> <step>"),
        (["run", "demo", "go"], "missing --event <path>"),
        (["fire"], "missing --event <path>"),
        (["fire", "--event", "bad.json"], "event file must contain at least string id and type: "),
        (["fire", "--event", "event.json", "--wait"], "Unknown option: --wait"),
    ],
)
def test_errors_of_the_runner(runner: Seed, args: list[str], says: str) -> None:
    write_event(runner.cwd)
    (runner.cwd / "bad.json").write_text('{"type": "demo"}')
    assert runner.refused(*args).startswith(says)


def test_the_runner_has_the_backends_verbs_and_its_data(runner: Seed) -> None:
    """In the original's folder where there is one, else in ours."""
    event = write_event(runner.cwd, "e1")
    assert runner.json("dispatch", "--event", event, "--wait")["ended"]
    assert (runner.cwd / ".stepwell/stepwell.sqlite").exists()
    (runner.cwd / DATA).mkdir(parents=True)
    assert runner.json("list-runs") == {"runs": []}


def test_an_unknown_program(tmp_path: Path) -> None:
    assert Seed(tmp_path, "nope").refused() == "Unknown program: nope"

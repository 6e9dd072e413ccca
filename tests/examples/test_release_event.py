"""What one release event starts; and that no test of this repository makes a real one."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.discovery import FlowCatalog
from stepwell.flows.manifest import load_flow
from tests.cli.support import program
from tests.examples.conftest import CHECKS, FORKS, Copy, make_world
from tests.examples.fixtures import EXAMPLES, STAND_INS
from tests.examples.support import NOW, World, release_event
from tests.server.support import environ

ROOT = Path(__file__).parents[2]
TWINS = tuple(FORKS.values())
BINDINGS, FORK = ("openai-codex-bindings", "regenerate-bindings"), ("peezy-codex-fork", "rebase-patch-stack")


@pytest.fixture
def both(tmp_path: Path, copy_bindings: Copy, copy_fork: Copy, monkeypatch: pytest.MonkeyPatch) -> World:
    """Both flows with their repositories, installed in one folder."""
    copy_bindings(tmp_path / "b")
    world = make_world(tmp_path, copy_fork, monkeypatch, "code-mode")
    shutil.copytree(world.cwd / ".codex/flows/peezy-codex-fork", tmp_path / "b/bindings-fixture/flows/peezy-codex-fork")
    world.cwd = tmp_path / "b/bindings-fixture"
    world.git("add", "--all", repo="b/bindings-fixture")
    world.git("commit", "-qm", "fixture: both flows", repo="b/bindings-fixture")
    return world


def stepwell(world: World, *args: str, stdin: str) -> Any:
    """What the command line answers in JSON, in the folder of the flows."""
    done = subprocess.run(
        [program(), *args], cwd=world.cwd, env=environ(), input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_one_event_runs_exactly_the_two_flows(both: World) -> None:
    """Spec 8.1 no. 3, through the command line."""
    told = stepwell(both, "flow", "fire", "--event", "-", "--json", stdin=json.dumps(release_event()))
    assert [(one["flow"], one["step"]) for one in told["results"]] == [BINDINGS, FORK]
    assert [one["result"]["status"] for one in told["results"]] == ["changed", "changed"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "upstream.released"},
        {"payload": {"repo": "fixture/codex", "tag": "rust-v0.0.0-fixture.1"}},
        {"payload": {"repo": "openai/codex"}},
        {"payload": {"repo": "openai/codex", "tag": 1}},
    ],
)
def test_other_events_run_neither(both: World, event: dict[str, Any]) -> None:
    assert both.fire({**release_event(), **event}) == []


def test_the_fork_flow_needs_code_mode_to_be_on(fork: World) -> None:
    """Spec 8.1 no. 4; its Python twin does not."""
    fork.env(CODEX_FLOWS_ENABLE_CODE_MODE="")
    if 'runner = "python"' in (fork.cwd / ".codex/flows/peezy-codex-fork/flow.toml").read_text():
        assert fork.one().status == "changed"
    else:
        with pytest.raises(AssertionError, match="CODEX_FLOWS_ENABLE_CODE_MODE"):
            fork.one()


def test_a_tool_that_yields_is_asked_until_the_command_ends(
    tmp_path: Path, copy_fork: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 38: `exec_command` may answer before the end, without an exit code."""
    world = make_world(tmp_path, copy_fork, monkeypatch, "code-mode")
    world.env(CODEX_APP_SERVER_CODEX_COMMAND=os.environ["CODEX_APP_SERVER_CODEX_COMMAND"] + " --yields")
    slow = ["sh", "-c", "echo one; sleep 0.2; echo two; exit 3"]
    world.configure(world.cwd / ".codex/flows/peezy-codex-fork", yield_time_ms=20, checks=[*CHECKS, slow])
    last = world.one().facts["commands"][-1]
    assert (last["exitCode"], last["stdout"]) == (3, "one\ntwo\n")


# ── the twins ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_twins_are_one_flow_so_an_event_never_runs_both(tmp_path: Path) -> None:
    """They have one name: the product uses the first that it finds, and says that the other is not used."""
    for package in TWINS:
        shutil.copytree(EXAMPLES / package, tmp_path / "flows" / package)
    found = FlowCatalog().discover(tmp_path)
    assert [flow.name for flow in found.flows] == ["peezy-codex-fork"]
    assert [one.path.name for one in found.shadowed] == ["peezy-codex-fork-python"]
    assert not found.problems


def test_the_twins_say_the_same_of_themselves() -> None:
    one, other = (load_flow(EXAMPLES / package) for package in TWINS)
    assert (one.config, one.guidance, one.version) == (other.config, other.guidance, other.version)
    (step,), (twin,) = one.steps, other.steps
    assert (step.runner, twin.runner) == ("code-mode", "python")
    for name in ("name", "timeout_ms", "trigger", "concurrency", "env", "enabled"):
        assert getattr(step, name) == getattr(twin, name), name


def test_the_schemas_are_one(tmp_path: Path) -> None:
    texts = {path.read_text() for path in EXAMPLES.glob("*/schemas/upstream-release.schema.json")}
    assert len(texts) == 1


def test_the_packages_are_as_the_seed_has_them() -> None:
    bindings, fork = load_flow(EXAMPLES / BINDINGS[0]), load_flow(EXAMPLES / FORK[0])
    told = [(step.name, step.runner, step.timeout_ms) for flow in (bindings, fork) for step in flow.steps]
    assert told == [(BINDINGS[1], "bun", 20 * 60_000), (FORK[1], "code-mode", 60 * 60_000)]
    assert fork.guidance == {"skills": ["jojo-development-flow"]}
    flags = [[flow.config[name] for name in ("commit", "push", "publish")] for flow in (bindings, fork)]
    assert flags == [[True, False, False]] * 2


# ── an upstream release is never faked ───────────────────────────────────────────────────────────────────────────

REAL_TAG = re.compile(r"rust-v\d+\.\d+\.\d+(?!-fixture)")
# The words as a value, save for the trigger of a manifest, and for the type that `stepwell smoke` refuses to send.
SENDS = re.compile(r"""(?<!type = )(?<!Trigger\()(?<!"--type", )["']upstream\.release["']""")


def texts() -> dict[str, str]:
    """What tests, examples, benchmarks and documents say, by path."""
    found = {}
    for folder in ("tests", "examples", "bench", "docs", "src"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".json", ".md", ".ts", ".js", ".mjs", ".toml", ".sh"}:
                found[str(path.relative_to(ROOT))] = path.read_text()
    return found


def offences(path: str, text: str) -> list[str]:
    """Events of type upstream.release that are no fixture: another source beside it, or a tag that could be real."""
    found = []
    for match in SENDS.finditer(text):
        beside = text[max(0, match.start() - 300) : match.end() + 300]
        if not re.search(r"""["']source["']\s*:\s*["']fixture["']""", beside) or REAL_TAG.search(beside):
            found.append(f"{path}: {match.group()}")
    return found


def test_no_event_of_this_repository_names_a_real_release() -> None:
    found = texts()
    assert [one for path, text in found.items() for one in offences(path, text)] == []
    assert SENDS.search(found["tests/examples/support.py"])


def test_a_planted_release_is_found() -> None:
    kind = '"type": "upstream.' + 'release"'
    assert offences("x.py", "{" + kind + ', "source": "github"}')
    assert offences("x.py", "{" + kind + ', "source": "fixture", "tag": "rust-v' + '0.1.2"}')
    assert not offences("x.py", "{" + kind + ', "source": "fixture", "tag": "rust-v' + '0.1.2-fixture.1"}')


def test_an_event_that_is_no_fixture_cannot_be_made() -> None:
    with pytest.raises(AssertionError):
        release_event("rust-v0.1" + ".2")
    assert release_event()["source"] == "fixture"
    assert NOW.endswith("Z")


@pytest.mark.parametrize("name", STAND_INS)
def test_nothing_is_fired_without_the_stand_ins(fork: World, name: str) -> None:
    (fork.stand_ins / name).unlink()
    with pytest.raises(AssertionError, match=f"the real {name} would be called"):
        fork.fire()

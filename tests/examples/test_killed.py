"""Release flows that are killed between any two commands, and run again: the end is as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.manifest import load_flow
from tests.examples.conftest import Copy, make_world
from tests.examples.fixtures import BRANCH, GENERATED, TAG, VERSION
from tests.examples.support import Ran, World, release_event

MAIN = ("rev-parse", "main")
# After which call of git a flow is killed: from the first one that changes anything, or before it, to the last one.
BINDINGS_CALLS, FORK_CALLS, FORK_READS = 10, 24, 6

_WIRE = """#!/bin/sh
here="$(dirname "$0")"
count=$(( $(cat "$here/count") + 1 ))
echo $count > "$here/count"
"{git}" "$@"
code=$?
[ "$count" != "$(cat "$here/at")" ] || kill -9 0
exit $code
"""


class Wire:
    """A real git, behind a wire over which the flow stumbles after its nth call."""

    def __init__(self, world: World) -> None:
        self.folder = world.folder / "wire"
        self.folder.mkdir()
        git = shutil.which("git")
        (self.folder / "git").write_text(_WIRE.replace("{git}", str(git)))
        (self.folder / "git").chmod(0o755)
        world.env(PATH=f"{self.folder}{os.pathsep}{os.environ['PATH']}")
        self.arm(0)

    def arm(self, at: int) -> None:
        (self.folder / "count").write_text("0")
        (self.folder / "at").write_text(str(at))

    @property
    def calls(self) -> int:
        return int((self.folder / "count").read_text())


def attempt(root: Path, *program: str) -> tuple[int, Ran | None]:
    """One attempt of the step's own process, with the context of one run; what it answered unless it was killed."""
    flow = load_flow(root)
    described: dict[str, Any] = {"name": flow.name, "root": str(root), "config": flow.config, "event": release_event()}
    context = json.dumps({"flow": described, "runtime": {"runId": "run-fixture"}})
    script = root / str(flow.steps[0].script)
    child = subprocess.run(
        [*program, str(script)], cwd=root, input=context, text=True, capture_output=True, start_new_session=True
    )
    last = child.stdout.splitlines()[-1:] or [""]
    mark, _, result = last[0].partition("FLOW_RESULT ")
    return child.returncode, Ran(flow.name, "", json.loads(result)) if result and not mark else None


@pytest.fixture
def prepared(bindings: World) -> World:
    """The bindings without checks, and with a push."""
    bindings.configure(bindings.repo / ".codex/flows/openai-codex-bindings", checks=[])
    bindings.git("commit", "-qam", "fixture: no checks")
    bindings.env(CODEX_FLOW_PUSH="1")
    return bindings


def bun(world: World) -> tuple[int, Ran | None]:
    return attempt(world.repo / ".codex/flows/openai-codex-bindings", "bun")


@pytest.mark.parametrize("at", range(1, BINDINGS_CALLS + 1))
def test_bindings(prepared: World, at: int) -> None:
    wire = Wire(prepared)
    wire.arm(at)
    assert bun(prepared) == (-signal.SIGKILL, None)
    wire.arm(0)
    _, ran = bun(prepared)
    assert ran is not None
    assert (ran.status, ran.facts["pushed"], prepared.dirty()) == ("changed", True, "")
    assert prepared.git("rev-list", "--count", "HEAD") == "3"
    assert prepared.git(*MAIN, repo="origin-fixture.git") == prepared.git(*MAIN)


def test_bindings_are_killed_everywhere(prepared: World) -> None:
    """The numbers above reach the last call of git."""
    wire = Wire(prepared)
    _, ran = bun(prepared)
    assert ran is not None
    assert wire.calls == BINDINGS_CALLS


def test_bindings_that_were_half_generated(prepared: World) -> None:
    """A kill inside the generator: the next run knows the files for a run's own, keeps them aside and begins again."""
    hook = prepared.stand_ins / "npx.sh"
    hook.write_text("kill -9 0\n")
    assert bun(prepared)[0] == -signal.SIGKILL
    assert "made-new.ts" in prepared.dirty()
    hook.unlink()
    _, ran = bun(prepared)
    assert ran is not None
    assert ran.status == "changed"
    assert prepared.git("show", f"{ran.facts['unfinished']}:{GENERATED}/made-new.ts") == "export {};"


def test_what_a_killed_run_left_is_cleaned_once(prepared: World) -> None:
    """After that, changes in the same files are the user's, and block."""
    (prepared.stand_ins / "npx.sh").write_text("kill -9 0\n")
    bun(prepared)
    (prepared.repo / "notes.txt").write_text("of the user\n")
    _, ran = bun(prepared)
    assert ran is not None
    assert (ran.status, prepared.dirty()) == ("blocked", "?? notes.txt")
    (prepared.repo / GENERATED / "protocol.ts").write_text("of the user\n")
    _, ran = bun(prepared)
    assert ran is not None
    assert ran.status == "blocked"
    assert (prepared.repo / GENERATED / "protocol.ts").read_text() == "of the user\n"


@pytest.fixture
def twin(tmp_path: Path, copy_fork: Copy, monkeypatch: pytest.MonkeyPatch) -> World:
    world = make_world(tmp_path, copy_fork, monkeypatch, "python")
    world.env(CODEX_FLOW_PUSH="1", CODEX_FLOW_PUBLISH="1")
    return world


def python(world: World) -> tuple[int, Ran | None]:
    return attempt(world.cwd / ".codex/flows/peezy-codex-fork", sys.executable)


@pytest.mark.parametrize("at", range(FORK_READS, FORK_CALLS + 1))
def test_fork(twin: World, at: int) -> None:
    before, wire = twin.git("rev-parse", BRANCH), Wire(twin)
    wire.arm(at)
    assert python(twin) == (-signal.SIGKILL, None)
    wire.arm(0)
    _, ran = python(twin)
    assert ran is not None
    assert (ran.status, ran.facts["beforeSha"], twin.dirty()) == ("changed", before, "")
    head = twin.git("rev-parse", BRANCH)
    assert twin.git("log", "--format=%P", "-1") == twin.git("rev-parse", TAG)
    assert twin.git("rev-parse", BRANCH, repo="origin-fixture.git") == head
    assert twin.git("rev-parse", f"rust-v{VERSION}^{{commit}}", repo="origin-fixture.git") == head


def test_the_fork_is_killed_everywhere(twin: World) -> None:
    wire = Wire(twin)
    _, ran = python(twin)
    assert ran is not None
    assert wire.calls == FORK_CALLS

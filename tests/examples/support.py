"""A world for one test: a fixture repository, stand-ins on the PATH, flows that are installed, and the product."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from stepwell.flows.events import parse_event
from stepwell.model.settings import Settings
from stepwell.worker.local import Local, open_local
from tests.examples.fixtures import EXAMPLES, STAND_INS, TAG, git, make_stand_ins

PATIENCE_S = 60.0
NOW = "2026-01-01T00:00:00Z"
PEER = Path(__file__).parents[1] / "flows" / "code_mode" / "peer.mjs"
SETTINGS = Settings(poll_ms=50, sync="normal")
Json = dict[str, Any]


class Ran(Struct, frozen=True):
    """A run that ended: its step, the run's status and what the step answered."""

    name: str
    run_status: str
    result: Json

    @property
    def status(self) -> str:
        return str(self.result["status"])

    @property
    def facts(self) -> Json:
        """The artifacts."""
        found = self.result["artifacts"]
        assert isinstance(found, dict)
        return found

    @property
    def commands(self) -> list[str]:
        """The commands of the run, as typed."""
        return [one["command"] for one in self.facts["commands"]]

    def ran(self, start: str) -> bool:
        """Whether a command began so."""
        return any(command.startswith(start) for command in self.commands)


def release_event(tag: str = TAG, event_id: str = "fixture-release") -> Json:
    """The event of a release that is none: it says so in its source, its id and its tag."""
    assert "fixture" in tag
    payload = {"repo": "openai/codex", "tag": tag}
    return {"id": event_id, "type": "upstream.release", "source": "fixture", "payload": payload}


class World:
    """What a test holds. Environment and PATH are set for the test's time."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, repo: str) -> None:
        self.folder, self.patch, self.repo = folder, patch, folder / repo
        self.cwd = folder
        self.stand_ins = make_stand_ins(folder / "stand-ins")
        for name in [name for name in os.environ if name.startswith(("CODEX_", "PEEZY_", "GIT_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("PATH", f"{self.stand_ins}{os.pathsep}{os.environ['PATH']}")

    def env(self, **variables: str) -> None:
        """Sets variables of the worker."""
        for name, value in variables.items():
            self.patch.setenv(name, value)

    def git(self, *args: str, repo: str = "") -> str:
        """Git in the fixture, or in one beside it."""
        return git(self.folder / repo if repo else self.repo, *args)

    def dirty(self) -> str:
        return self.git("status", "--porcelain")

    def calls(self) -> list[str]:
        """What the stand-ins were called with."""
        log = self.stand_ins / "calls.log"
        return log.read_text().splitlines() if log.exists() else []

    def npm_says(self, text: str) -> None:
        """npm view succeeds with this text from now on."""
        (self.stand_ins / "npm.stdout").write_text(text)

    def install(self, package: str, name: str, **config: Any) -> Path:
        """`cp -r` of an example into .codex/flows, with other values for some keys of its config."""
        root = self.cwd / ".codex/flows" / name
        if not root.exists():
            shutil.copytree(EXAMPLES / package, root)
        self.configure(root, **config)
        return root

    def configure(self, root: Path, **config: Any) -> None:
        """Other values for keys that the config of an installed package has."""
        manifest = root / "flow.toml"
        text = manifest.read_text()
        for key, value in config.items():
            pattern = re.compile(rf"^{key} = (\[\n.*?^\]|[^\n]*)$", re.MULTILINE | re.DOTALL)
            found = pattern.search(text)
            assert found is not None, key
            text = f"{text[: found.start()]}{key} = {json.dumps(value)}{text[found.end() :]}"
        manifest.write_text(text)

    def fire(self, event: Json | None = None) -> list[Ran]:
        """Dispatches an event in the product, and gives its runs when they have ended."""
        for name in STAND_INS:
            assert shutil.which(name) == str(self.stand_ins / name), f"the real {name} would be called"
        return asyncio.run(_fire(self.cwd, event or release_event()))

    def one(self, event: Json | None = None) -> Ran:
        """The same for an event of one run, which also says how many characters were kept of commands."""
        (ran,) = self.fire(event)
        for command in ran.facts.get("commands", []):
            assert max(len(command["stdout"]), len(command["stderr"])) <= 4_000
        return ran


async def _fire(cwd: Path, event: Json) -> list[Ran]:
    async with open_local("memory:", cwd, settings=SETTINGS, slots=4) as local:
        accepted = await local.flows.dispatch(parse_event(event, now_iso=NOW))
        return [await _ended(local, run_id) for run_id in accepted.run_ids]


async def _ended(local: Local, run_id: str) -> Ran:
    row = await local.engine.read(lambda reader: reader.run("main", run_id))
    assert row is not None
    run = await local.engine.wait_run(row.no, lambda run: run.terminal, timeout_s=PATIENCE_S)
    assert run is not None
    assert run.result is not None, run.error
    return Ran(run.name, run.status, json.loads(run.result))


def copier(make: Callable[[Path], None], folder: Path) -> Callable[[Path], None]:
    """Makes a prepared folder once; the function copies it."""
    folder.mkdir()
    make(folder)

    def copy(target: Path) -> None:
        shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)

    return copy

"""The everyday example, through the command line as its README shows it."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stepwell.worker.local import open_local
from tests.cli.support import program
from tests.examples.fixtures import EXAMPLES
from tests.examples.support import PATIENCE_S, SETTINGS
from tests.server.support import environ

EVENT = EXAMPLES / "greeting" / "event.json"


def stepwell(cwd: Path, *args: str, **env: str) -> Any:
    """What the command line answers in JSON."""
    command = [program(), *args, "--json"]
    done = subprocess.run(command, cwd=cwd, env=environ(**env), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_an_event_fires_python_and_bun_and_what_they_send_fires_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flow fire` waits for its own two runs; the third is on the books, and whoever works next ends it."""
    shutil.copytree(EXAMPLES / "greeting", tmp_path / ".codex/flows/greeting")
    book = tmp_path / "guests.txt"
    told = stepwell(tmp_path, "flow", "fire", "--event", str(EVENT), GUEST_BOOK=str(book))
    results = {one["step"]: one["result"] for one in told["results"]}
    assert results["greet"]["message"] == "Hello, Ada!"
    assert results["announce"] == {"status": "completed", "message": "ADA is here", "artifacts": {"attempt": 2}}

    runs = stepwell(tmp_path, "runs", "list")["runs"]
    (sent,) = [run["id"] for run in runs if run["name"] == "greeting/write-down"]
    monkeypatch.setenv("GUEST_BOOK", str(book))
    status = asyncio.run(ended(tmp_path, sent))
    assert status in {"changed", "skipped"}  # skipped: its first attempt wrote, and was handed back before it said so
    assert book.read_text() == f"Hello, Ada! ({sent})\n"


async def ended(cwd: Path, run_id: str) -> str | None:
    """The result of a run in the database of the command line, which a worker ends unless it has ended."""
    async with open_local(f"sqlite:///{cwd}/.stepwell/stepwell.sqlite", cwd, settings=SETTINGS, slots=1) as local:
        row = await local.engine.read(lambda reader: reader.run("main", run_id))
        assert row is not None
        run = await local.engine.wait_run(row.no, lambda run: run.terminal, timeout_s=PATIENCE_S)
        return run.result_status if run else None

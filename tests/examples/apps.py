"""The programs of examples/apps: as processes, and as modules of a test."""

import asyncio
import importlib.util
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from stepwell import Entry, Handle, Stepwell
from stepwell.model.settings import Settings
from stepwell.store.sqlite.store import SqliteStore
from tests.support import assert_lawful

APPS = Path(__file__).parents[2] / "examples" / "apps"
PATIENCE_S = 20.0
#: A run that only waits leaves the memory at once, so that a test sees it wait.
QUICK = {"STEPWELL_LINGER_MS": "50", "STEPWELL_POLL_MS": "100", "STEPWELL_SYNC": "normal"}
SETTINGS = Settings(linger_ms=50, poll_ms=100, sync="normal")
WAITS = ("sleeping", "waiting")


@cache
def module(name: str) -> Any:
    """A program as a module, under a name of its own: there are many demos and releases."""
    path = APPS / name
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def typed(name: str, *args: str) -> list[str]:
    """As a user types it."""
    return [sys.executable, str(APPS / name), *args]


def ran(cwd: Path, env: dict[str, str], name: str, *args: str) -> list[str]:
    """The lines that a program says in a folder, until it ends well; what it leaves is lawful."""
    done = subprocess.run(
        typed(name, *args), cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lawful(cwd)
    return done.stdout.splitlines()


def lawful(cwd: Path) -> None:
    """The doctor finds nothing in the one database of a folder."""
    (path,) = cwd.glob("*.sqlite")
    assert_lawful(SqliteStore(path))


class Clock:
    """The time, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


def within(
    app: Any, test: Callable[[Stepwell], Awaitable[None]], *, clock: Clock | None = None, url: str = "memory:"
) -> None:
    """A test in an open Stepwell."""

    async def main() -> None:
        async with Stepwell(url, app, settings=SETTINGS, clock_ms=clock or Clock()) as sw:
            await asyncio.wait_for(test(sw), PATIENCE_S)

    asyncio.run(main())


async def parked(run: Handle[Any]) -> str | None:
    """What the run waits for, when it has left its worker's memory."""
    async for seen in run.watch():
        if seen.status in WAITS:
            return seen.waiting_for
    raise AssertionError(f"{run.id} has ended")


async def entries(run: Handle[Any], *kinds: str) -> list[Entry]:
    """Those entries of its journal, in order."""
    return [entry async for entry in run.journal() if entry.kind in kinds]

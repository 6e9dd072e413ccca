"""Workflows that events start: processes of one engine, with packages and apps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, field

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.views import full_run_view
from stepwell.flows.workflows import AppWorkflows
from stepwell.model import commands as c
from stepwell.model.rows import Event, Run
from stepwell.model.settings import Settings
from tests.support import STORES, assert_lawful, open_store

from .packages import package

REVIEW = """
[[steps]]
name = "look"
runner = "workflow"
workflow = "ci:review"
"""
ON_DEMO = '[steps.trigger]\ntype = "demo"\n'
NEEDS = ("workflow:ci:review",)
LEASE_MS = 60_000


class Registered(Struct, frozen=True):
    """A workflow as a registry has it."""

    path: str
    on: str | None = None
    version: str = "1"
    options: Mapping[str, Any] = field(default_factory=dict)


class Place(Struct, frozen=True):
    """What has a name, as a pool."""

    name: str


class House(Struct):
    """One engine, and backends on it as if they were processes."""

    engine: Engine
    cwd: Path

    def backend(self, *workflows: Registered, app: str = "ci") -> FlowBackend:
        """A process with an app; without workflows, one that has none."""
        return FlowBackend(self.engine, self.cwd, app=AppWorkflows(app, workflows) if workflows else None)

    async def claim(self, *requires: str) -> list[c.Leased]:
        secret = self.engine.secret()
        return (
            await self.engine.submit(c.Claim("w", secret, limit=10, lease_ms=LEASE_MS, requires=requires or NEEDS))
        ).tasks

    async def run(self, run_id: str) -> Run:
        run = await self.engine.read(lambda reader: reader.run("main", run_id))
        assert run is not None
        return run

    async def event(self, event_id: str) -> Event:
        row = await self.engine.read(lambda reader: reader.event("main", event_id))
        assert row is not None
        return row

    async def view(self, run_id: str) -> dict[str, Any]:
        run = await self.run(run_id)
        entries = await self.engine.read(lambda reader: reader.entries(run.no))
        return full_run_view(run, "ev-1", "", entries, ())

    async def finish(self, leased: c.Leased, result: str = "{}") -> None:
        await self.engine.submit(c.Finish(leased.lease, 1, c.Completed(result)))


def on_both(test: Callable[[House], Awaitable[None]]) -> Any:
    """Runs a test on each store; the store must be lawful at its end."""

    @pytest.mark.parametrize("kind", STORES)
    def run(kind: str, tmp_path: Path) -> None:
        store = open_store(kind, tmp_path)

        @asynccontextmanager
        async def opened() -> AsyncIterator[House]:
            async with Engine(store, settings=Settings(sync="normal"), roles=False) as engine:
                yield House(engine, tmp_path)
                await asyncio.to_thread(assert_lawful, store, engine.settings)

        async def main() -> None:
            async with opened() as it:
                await test(it)

        asyncio.run(main())

    run.__doc__ = test.__doc__
    return run


def look(cwd: Path, more: str = "", *, name: str = "pkg") -> Path:
    """A package whose step is the workflow ci:review, on events of type demo."""
    return package(cwd / "flows" / name, REVIEW + more + ON_DEMO, name=name)

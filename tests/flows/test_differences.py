"""Servers of one database whose folders differ: each event is matched by whoever takes it, and that costs no commit."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FRESH_S, FlowBackend
from stepwell.flows.differences import MAX_TAKEN_BACK, Differences
from stepwell.flows.events import parse_event
from stepwell.model.settings import Settings
from tests.server.support import flow
from tests.support import assert_lawful, durable

pytestmark = pytest.mark.stores("sqlite", "postgres")
SETTINGS = Settings(sync="normal")


@asynccontextmanager
async def servers(path: Path, *folders: str) -> AsyncIterator[list[FlowBackend]]:
    """One for each folder, each with an engine of its own on one database."""
    async with AsyncExitStack() as stack:
        found = []
        for folder in folders:
            engine = await stack.enter_async_context(Engine(durable(path / "s.sqlite"), settings=SETTINGS, roles=False))
            found.append(FlowBackend(engine, path / folder))
        yield found
    assert_lawful(durable(path / "s.sqlite"), SETTINGS)


async def started(server: FlowBackend, event_id: str) -> list[str]:
    """Which steps an event starts."""
    event = parse_event({"id": event_id, "type": "demo"}, now_iso="2026-01-01T00:00:00Z")
    accepted = await server.dispatch(event)
    rows = await server.engine.read(lambda reader: [reader.run("main", run_id) for run_id in accepted.run_ids])
    return sorted(row.name for row in rows if row is not None)


async def revision(server: FlowBackend) -> int:
    return await server.engine.read(lambda reader: reader.meta("revision:main")) or 0


async def commits(server: FlowBackend) -> int:
    return await server.engine.read(lambda reader: reader.others(["nobody"]))


def test_after_each_took_back_what_the_other_told_neither_does_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow(tmp_path / "a", "one")
    flow(tmp_path / "b", "two")

    async def main() -> None:
        async with servers(tmp_path, "a", "b") as (a, b):
            for n in range(3):
                assert await started(a, f"a{n}") == ["one/go"]
                assert await started(b, f"b{n}") == ["two/go"]
            settled, before = await revision(a), await commits(a)
            for n in range(3, 8):
                assert await started(a, f"a{n}") == ["one/go"]
                assert await started(b, f"b{n}") == ["two/go"]
            assert await revision(a) == settled
            assert await commits(a) == before + 10, "one for each event"
            flow(tmp_path / "a", "more")
            await asyncio.sleep(FRESH_S)
            assert await started(a, "changed") == ["more/go", "one/go"]
            assert await revision(a) == settled + 1
            assert await started(b, "b9") == ["two/go"]

    with caplog.at_level(logging.WARNING, "stepwell.flows"):
        asyncio.run(main())
    said = [record.message for record in caplog.records]
    assert len(said) <= 2, "once for each"
    assert said
    assert all("the same folder" in one for one in said)


def test_one_who_sees_the_folder_change_back_says_so_though_another_saw_it_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the store has is what a process without a folder goes by: it must not stay behind the folder."""
    flow(tmp_path / "a", "one")

    async def main() -> None:
        async with servers(tmp_path, "a", "a") as (first, second):
            assert await started(first, "e1") == await started(second, "e2") == ["one/go"]
            more = flow(tmp_path / "a", "two")
            await asyncio.sleep(FRESH_S)
            assert await started(second, "e3") == ["one/go", "two/go"]
            (more / "flow.toml").unlink()
            assert await started(first, "e4") == ["one/go"], "the look at the folder is a fresh one"
            rows = await first.engine.read(lambda reader: reader.manifests("main"))
            assert [row.name for row in rows] == ["one"]

    asyncio.run(main())
    assert not caplog.records


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    differences, first = Differences("main"), frozenset({("f", "0")})
    assert (differences.is_new(first), differences.is_new(first), differences.is_new(first)) == (True, False, False)
    assert len(caplog.records) == 1
    assert all(differences.is_new(frozenset({("f", str(n))})) for n in range(1, MAX_TAKEN_BACK + 1))
    assert differences.is_new(first)

"""A JSON file for each event, that follows and harms nobody."""

import asyncio
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.events import parse_event
from stepwell.flows.export import EventFiles, event_file_name
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.worker.local import open_local
from tests.server.support import serving
from tests.support import Bench, durable_url, open_store

NOW = "2026-01-02T03:04:05.678Z"
OLD_S = 40 * 86_400


@pytest.mark.parametrize(
    ("event_id", "safe"),
    [
        ("abc", "abc"),
        ("Release:rust-v1.2.3", "release-rust-v1.2.3"),
        ("--a//b::c--", "a-b-c"),
        ("../../etc/passwd", "..-..-etc-passwd"),
        ("\u00c4\u00f6", "event"),
        ("%#", "event"),
        ("x" * 200, "x" * 64),
        ("A_b.C", "a_b.c"),
    ],
)
def test_the_name_of_a_file(event_id: str, safe: str) -> None:
    """Spec 4.4: legible, safe, and different for each id."""
    name = event_file_name(event_id)
    stem, dash, rest = name.rpartition("-")
    assert (stem, dash, rest[12:]) == (safe, "-", ".json")
    assert event_file_name(event_id + " ") != name


def test_the_hash_is_of_the_id_as_it_is() -> None:
    """The first 12 hex digits of SHA-256, as the original has them."""
    assert event_file_name("abc") == "abc-ba7816bf8f01.json"
    assert event_file_name("ABC") == "abc-b5d4045c3f46.json"


async def until(fits: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fits():  # noqa: ASYNC110 - files have no events
            await asyncio.sleep(0.01)


async def dispatch(backend: FlowBackend, event_id: str) -> None:
    body = {"id": event_id, "type": "t", "payload": {"n": [1, None, "\u00e4"]}, "more": True, "source": "here"}
    await backend.dispatch(parse_event(body, now_iso=NOW))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_an_event_that_is_committed_after_one_with_a_higher_number_has_a_file_too(tmp_path: Path) -> None:
    """A lane takes a number for a batch that it has to make again, and others are quicker."""

    def accept(bench: Bench, event_id: str) -> None:
        bench.do(c.AcceptEvent(c.NewEvent(event_id, "t", NOW, "hash")))

    async def main() -> None:
        store = open_store("postgres", tmp_path)
        late = store.session("one")
        with closing(Bench(store, session=late)) as one, closing(Bench(store, name="two")) as two:
            async with Engine(store, roles=False) as engine:
                role = EventFiles(engine, tmp_path / "events")
                accept(one, "a")
                late.begin()
                late.numbers("event", 1)
                late.rollback()
                accept(two, "b")
                await role.work()
                await role.work()
                accept(one, "c")
                numbers = {event.id: event.no for event in await engine.read(lambda reader: reader.scan_events())}
                assert numbers["c"] < numbers["b"]
                await role.work()
                assert files(tmp_path / "events") == {event_file_name(name) for name in numbers}

    asyncio.run(main())


def test_files_follow_events_and_what_is_missing_is_written_at_the_start(tmp_path: Path) -> None:
    folder, url = tmp_path / "data/events", durable_url(tmp_path / "s.sqlite")
    ids = [f"e/{n}" for n in range(250)]

    async def first() -> None:
        async with open_local(url, tmp_path, settings=Settings(), events_dir=folder) as local:
            for event_id in ids:
                await dispatch(local.flows, event_id)
            await until(lambda: files(folder) == {event_file_name(one) for one in ids})

    asyncio.run(first())
    path = folder / event_file_name("e/7")
    assert path.read_text().startswith('{\n  "id": "e/7",\n')
    assert json.loads(path.read_text()) == {
        "id": "e/7", "type": "t", "source": "here", "receivedAt": NOW, "payload": {"n": [1, None, "\u00e4"]},
        "more": True,
    }  # fmt: skip
    path.unlink()
    empty, kept = folder / event_file_name("e/8"), folder / event_file_name("e/9")
    empty.write_text("")
    kept.write_text("nothing reads it back")

    async def again() -> None:
        async with open_local(url, tmp_path, settings=Settings(), events_dir=folder):
            await until(lambda: path.exists() and empty.stat().st_size > 0)

    asyncio.run(again())
    assert kept.read_text() == "nothing reads it back"
    assert files(folder) == {event_file_name(one) for one in ids}


def test_a_folder_that_cannot_be_written_harms_no_dispatch_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.flows.export.RETRY_S", 0.02)
    folder = tmp_path / "events"
    folder.write_text("a file stands in the way")
    rounds = 0

    class Counting(EventFiles):
        async def work(self) -> float:
            nonlocal rounds
            rounds += 1
            return await super().work()

    async def main() -> None:
        async with Engine(MemoryStore(), roles=False) as engine:
            role, backend = Counting(engine, folder), FlowBackend(engine, tmp_path)
            role.start()
            await dispatch(backend, "one")
            role.hint()
            seen = rounds
            await until(lambda: rounds >= seen + 4)
            await dispatch(backend, "two")
            assert len(told(caplog)) == 1
            assert "cannot be written" in told(caplog)[0]
            folder.unlink()
            await until(lambda: files(folder) == {event_file_name("one"), event_file_name("two")})
            await until(lambda: len(told(caplog)) == 2)
            await role.stop()

    with caplog.at_level(logging.WARNING, "stepwell.export"):
        asyncio.run(main())
    assert "written again" in told(caplog)[1]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_full_disk_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to /dev/full stands where the part of the first file is written."""
    monkeypatch.setattr("stepwell.flows.export.RETRY_S", 0.02)
    part = tmp_path / f".{event_file_name('one')}.{os.getpid()}"
    part.symlink_to("/dev/full")

    async def main() -> None:
        async with Engine(MemoryStore(), roles=False) as engine:
            backend, role = FlowBackend(engine, tmp_path), EventFiles(engine, tmp_path)
            await dispatch(backend, "one")
            assert await role.work() == 0.02
            assert files(tmp_path) == set()
            await role.work()
            assert files(tmp_path) == {event_file_name("one")}

    asyncio.run(main())


def test_only_own_files_of_events_that_are_gone_and_old_are_deleted(tmp_path: Path) -> None:
    def put(name: str, text: str, *, age_s: float = OLD_S) -> str:
        path = tmp_path / name
        path.write_text(text)
        os.utime(path, (time.time() - age_s,) * 2)
        return name

    gone = put(event_file_name("gone"), '{"id": "gone"}')
    left = put(f".{event_file_name('x')}.123", "half")
    stay = {
        put(event_file_name("young"), '{"id": "young"}', age_s=10),
        put(event_file_name("known"), '{"id": "known"}'),
        put(event_file_name("other"), '{"id": "not other"}'),
        put(event_file_name("broken"), '{"id": '),
        put("notes.json", '{"id": "notes"}'),
        put(f".{event_file_name('y')}.123", "half", age_s=60),
    }
    (tmp_path / event_file_name("folder")).mkdir()
    stay.add(event_file_name("folder"))

    async def main() -> None:
        async with Engine(MemoryStore(), roles=False) as engine:
            await dispatch(FlowBackend(engine, tmp_path), "known")
            await EventFiles(engine, tmp_path).work()

    asyncio.run(main())
    assert {gone, left} & files(tmp_path) == set()
    assert files(tmp_path) == stay


def test_a_server_writes_them_into_its_data_folder(tmp_path: Path) -> None:
    """Also with the folder's place taken: then it serves all the same."""
    folder = tmp_path / ".stepwell/events"
    with serving(tmp_path) as server:
        server.send("Release:1", {"v": 1})
        asyncio.run(until(lambda: files(folder) == {event_file_name("Release:1")}))
    shutil.rmtree(folder)
    folder.write_text("")
    with serving(tmp_path) as server:
        server.send("Release:2")
        assert server.get("/readyz")["ok"]
    assert "event files in" in (tmp_path / "server.log").read_text()

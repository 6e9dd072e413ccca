"""What processes tell each other of their commits, and what becomes of it where they do not."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from stepwell.engine.committed import Committed, Wake
from stepwell.engine.engine import Engine
from stepwell.engine.hearsay import MOST, READY_S, Others, Said, understood
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import SAID_BYTES
from stepwell.store.postgres.bell import Bell
from stepwell.store.postgres.store import PostgresStore
from tests.support import postgres

#: A poll that no test waits for.
SLOW = Settings(poll_ms=60_000)
PATIENCE_S = 20


def test_what_was_said_is_understood_as_it_was_committed() -> None:
    said = Said()
    assert said.texts() == ()
    assert not said.put(Committed(messages=True, freed=frozenset([("main", "p", "k")])))
    assert said.put(Committed(frozenset([1, 2]), {2: Wake(4, 1, 5, [])}, {1: None}))
    assert said.put(Committed(frozenset([2, 3]), {2: Wake(5, 1, 6)}, ready=True))
    (text,) = said.texts()
    assert understood(text) == Committed(frozenset([1, 2, 3]), {2: Wake(0, seq=6)}, {1: None}, ready=True)
    assert said.texts() == (), "once"


def test_much_is_said_in_parts_and_too_much_is_everything() -> None:
    said, big = Said(), 1 << 60
    for first in range(big, big + 2_000, 100):
        runs = range(first, first + 100)
        said.put(Committed(frozenset(runs), {no: Wake(0, seq=no) for no in runs}, dict.fromkeys(runs), ready=True))
    texts = said.texts()
    parts = [understood(text) for text in texts]
    assert max(len(text) for text in texts) <= SAID_BYTES
    assert frozenset(no for part in parts if part for no in part.runs) == frozenset(range(big, big + 2_000))
    assert len({no for part in parts if part for no in part.wakes.keys() & part.ended.keys()}) > 1_000
    assert [part.ready for part in parts if part] == [True] + [False] * (len(parts) - 1)
    for number in range(2 * MOST):
        said.put(Committed(frozenset([number]), ready=True))
    assert [understood(text) for text in said.texts()] == [None]
    assert said.put(Committed(frozenset([1])))
    assert len(said.texts()) == 1


def test_claims_follow_others_at_once_and_then_now_and_then() -> None:
    async def main() -> None:
        told, loop = list[Committed](), asyncio.get_running_loop()
        others = Others(told.append, lambda: None)
        others.join(MemoryStore(), loop)
        ready = Said()
        for number in range(20):
            ready.put(Committed(frozenset([number]), ready=True))
            for text in ready.texts():
                others._overheard(text)
        await asyncio.sleep(0)
        assert [sorted(one.runs) for one in told if one.runs] == [[number] for number in range(20)], "they all are told"
        await asyncio.sleep(3 * READY_S)
        assert [one.ready for one in told].count(True) == 1
        others._overheard(text)
        await asyncio.sleep(READY_S)
        assert [one.ready for one in told].count(True) == 2

    asyncio.run(main())


@pytest.mark.parametrize("text", ["", "[", '{"a":1}', '["x"]', "null"])
def test_what_is_not_understood_is_everything(text: str) -> None:
    assert understood(text) is None


# ── two processes on one database ────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def two(store: PostgresStore, other: PostgresStore) -> AsyncIterator[tuple[Engine, Engine]]:
    async with Engine(store, settings=SLOW) as one, Engine(other, settings=SLOW) as two:
        await until(lambda: all(hears(engine) for engine in (one, two)))
        yield one, two


def hears(engine: Engine) -> bool:
    assert isinstance(engine.store, PostgresStore)
    return engine.store.hears


async def until(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait, true)


def opened(tmp_path: Path) -> PostgresStore:
    return PostgresStore(postgres.address(tmp_path))


@pytest.fixture
def hearing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by themselves for as long as a test takes."""
    monkeypatch.setattr("stepwell.store.postgres.store.HEARD_S", 600.0)


@pytest.mark.usefixtures("hearing_only")
def test_who_waits_for_a_run_hears_of_another_process_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(opened(tmp_path), opened(tmp_path)) as (one, other):
            before = other._others.heard
            await one.submit(c.StartRun("r", "wf", pool="p"))
            await until(lambda: other._others.heard > before)
            ready, woken = other.ready_hint(), list[Wake]()
            other.listen(1, woken.append)
            with other.run_hint(1) as hint:
                ends = asyncio.create_task(other.wait_end(1))
                hint.clear()
                ready.clear()
                await one.submit(c.Signal("r", "s"))
                await until(lambda: bool(woken))
                assert hint.is_set()
                assert [(wake.seq, wake.entries) for wake in woken] == [(2, None)]
                await one.submit(c.StartRun("r2", "wf", pool="p"))
                await asyncio.wait_for(ready.wait(), PATIENCE_S)
                await one.submit(c.Terminate("r"))
                ended = await asyncio.wait_for(ends, PATIENCE_S)
                assert ended is not None
                assert ended.status == "canceled"

    asyncio.run(main())


def test_a_process_does_not_hear_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(opened(tmp_path), opened(tmp_path)) as (one, other):
            heard, others = one._others.heard, other._others.heard
            for number in range(5):
                await one.submit(c.StartRun(f"r{number}", "wf"))
            await until(lambda: other._others.heard > others)
            assert one._others.heard == heard

    asyncio.run(main())


def test_a_schema_hears_nothing_of_another_one(tmp_path: Path) -> None:
    async def main() -> None:
        stores = [opened(tmp_path / name) for name in ("a", "a", "b")]
        async with two(stores[0], stores[1]) as (one, same), Engine(stores[2], settings=SLOW) as other:
            await until(lambda: hears(other))
            before, others = same._others.heard, other._others.heard
            await one.submit(c.StartRun("r", "wf"))
            await until(lambda: same._others.heard > before)
            assert other._others.heard == others

    asyncio.run(main())


@pytest.mark.parametrize("pooled", [False, True])
def test_what_nobody_heard_is_found_all_the_same(tmp_path: Path, pooled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = PostgresStore(postgres.address(tmp_path), pooled=pooled)
        async with Engine(opened(tmp_path), settings=SLOW) as one, Engine(store, settings=SLOW) as other:
            await one.submit(c.StartRun("r", "wf"))
            await until(lambda: hears(other) != pooled)
            assert other.store.version() >= 0
            ends = asyncio.create_task(other.wait_end(1))
            monkeypatch.setattr(one._others, "_ring", None)
            await one.submit(c.Terminate("r"))
            ended = await asyncio.wait_for(ends, PATIENCE_S)
            assert ended is not None
            assert ended.status == "canceled"

    asyncio.run(main())


def test_a_bell_that_lost_its_connection_rings_again_and_says_that_it_missed_something(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.migrate()
    heard, words = list[str](), ["one"]

    def said() -> list[str]:
        return [words.pop()] if words else []

    listener = Bell(store.connect, heard.append, list, listens=True)
    speaker = Bell(store.connect, heard.append, said, listens=False)
    wait(lambda: heard == [""])
    speaker.ring()
    wait(lambda: heard == ["", "one"])
    with closing(store.connect()) as db:
        listening = (
            b"select pg_terminate_backend(pid) from pg_stat_activity where query like '%listen \"' || $1 || '\"%'"
        )
        channel = db.execute(b"select 'stepwell_' || md5(current_schema())").fetchall()[0][0]
        assert len(db.execute(listening, (channel,)).fetchall()) == 1
    wait(lambda: not listener.hears)
    wait(lambda: heard == ["", "one", ""])
    words.append("last")
    speaker.ring()
    speaker.close()  # what was to be said is said
    wait(lambda: heard == ["", "one", "", "last"])
    listener.close()
    listener.ring()  # too late, and no harm


def wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)

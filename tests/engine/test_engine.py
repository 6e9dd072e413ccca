"""The engine: roles with hints and without, timers to the millisecond, waiters, two on one file."""

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.committed import Committed
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.entries import ActionScheduled, ChildStarted
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Pool
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import Reader
from tests.support import Clock, assert_lawful, durable

QUICK = Settings(poll_ms=20)
SLOW = Settings(poll_ms=60_000)


async def turn(engine: Engine, run_id: str = "r") -> c.Leased:
    fused = c.ClaimFor("w", 120_000, engine.secret())
    started = await engine.submit(c.StartRun(run_id, "wf", claim_for=fused))
    assert started.claim is not None
    return started.claim


async def updated_at(engine: Engine, run_id: str) -> int:
    run = await engine.read(lambda reader: reader.run("main", run_id))
    assert run is not None
    return run.updated_at


async def until(engine: Engine, *, run_id: str, status: str) -> None:
    """Polls, so that no waiter of the engine is needed to see it."""
    async with asyncio.timeout(10):
        while True:
            run = await engine.read(lambda reader: reader.run("main", run_id))
            if run is not None and run.status == status:
                return
            await asyncio.sleep(0.005)


async def parked_until(engine: Engine, run_id: str, delay_ms: int) -> int:
    await engine.submit(c.StartRun(run_id, "wf", pool=run_id))
    (task,) = (await engine.submit(c.Claim("w", engine.secret(), (run_id,)))).tasks
    due_at = engine.clock_ms() + delay_ms
    await engine.submit(c.Park(task.lease, 1, task.seen, ("timer:t",), due_at, "t"))
    return due_at


def test_timers_fire_within_tens_of_milliseconds_without_any_poll(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(durable(tmp_path / "s.sqlite"), settings=SLOW) as engine:
            await asyncio.sleep(0.05)
            waits = {"late": 400, "soon": 150, "mid": 250, "mid2": 260, "soon2": 150}
            due = {name: await parked_until(engine, name, ms) for name, ms in waits.items()}
            for name in due:
                await until(engine, run_id=name, status="queued")
            late = sorted([await updated_at(engine, name) - due_at for name, due_at in due.items()])
            assert late[0] >= 0
            assert late[2] < 60, "in the middle; a busy machine may be late with one"
            assert late[-1] < 5_000, "no poll came to help"

    asyncio.run(main())


def test_timers_of_a_store_that_was_closed_fire_after_opening_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(durable(tmp_path / "s.sqlite"), settings=SLOW, roles=False) as engine:
            await parked_until(engine, "past", 1)
            await parked_until(engine, "soon", 300)
        async with Engine(durable(tmp_path / "s.sqlite"), settings=SLOW) as engine:
            await until(engine, run_id="past", status="queued")
            await until(engine, run_id="soon", status="queued")

    asyncio.run(main())


def test_a_lease_that_ran_out_does_not_keep_the_lane_busy() -> None:
    async def main() -> None:
        clock = Clock()
        async with Engine(MemoryStore(), settings=SLOW, clock_ms=clock) as engine:
            await turn(engine)
            await asyncio.sleep(0.05)
            clock.tick(120_001)
            assert engine._timekeeper is not None
            engine._timekeeper.hint()
            before = engine.lanes.timings.batches
            await asyncio.sleep(0.4)
            assert engine.lanes.timings.batches - before < 10

    asyncio.run(main())


def test_without_any_hint_polls_find_all_work() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=QUICK) as engine:
            engine.lanes.first._on_commit = lambda committed: None
            await engine.submit(c.SetPool(Pool("main", "p", key_limit=1)))
            parent = await turn(engine, "parent")
            drafts = (c.Draft(ChildStarted("kid", "w"), "k"), c.Draft(ActionScheduled("m:f"), "a"))
            recorded = await engine.submit(c.Record(parent.lease, 1, parent.seen, drafts))
            await engine.submit(c.Park(parent.lease, 2, recorded.head, ("child:k",)))
            await engine.submit(c.Terminate("kid"))
            await until(engine, run_id="parent", status="queued")
            await parked_until(engine, "timer", 50)
            await until(engine, run_id="timer", status="queued")
            await engine.submit(c.StartRun("lost", "wf", pool="lost"))
            await engine.submit(c.Claim("w", engine.secret(), ("lost",), lease_ms=1_000))
            await until(engine, run_id="lost", status="queued")
        assert_lawful(engine.store)

    asyncio.run(main())


def test_a_message_and_a_freed_key_are_seen_to_at_once() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=SLOW) as engine:
            await asyncio.sleep(0.05)
            parent = await turn(engine, "parent")
            drafts = (c.Draft(ChildStarted("kid", "w"), "k"),)
            recorded = await engine.submit(c.Record(parent.lease, 1, parent.seen, drafts))
            await engine.submit(c.Park(parent.lease, 2, recorded.head, ("child:k",)))
            await engine.submit(c.Terminate("kid"))
            await until(engine, run_id="parent", status="queued")
            await engine.submit(c.SetPool(Pool("main", "p", key_limit=1)))
            for name in ("a", "b"):
                await engine.submit(c.StartRun(name, "wf", pool="p", pool_key="k"))
            (first,) = (await engine.submit(c.Claim("w", "s", ("p",), limit=5))).tasks
            ready = engine.ready_hint()
            await engine.submit(c.Finish(first.lease, 1, c.Completed()))
            async with asyncio.timeout(5):
                while not (await engine.submit(c.Claim("w", engine.secret(), ("p",)))).tasks:
                    await ready.wait()
                    ready.clear()

    asyncio.run(main())


def test_wait_run_hears_of_the_end_at_once_and_has_a_bound() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=SLOW) as engine:
            task = await turn(engine)
            number = task.run.no
            waiting = asyncio.create_task(engine.wait_run(number, lambda run: run.terminal, timeout_s=5))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            await engine.submit(c.Finish(task.lease, 1, c.Completed("7")))
            run = await waiting
            assert run is not None
            assert (run.status, run.result) == ("completed", "7")
            assert time.monotonic() - started < 1
            assert await engine.wait_run(number, lambda run: run.terminal) == run
            assert await engine.wait_run(99, lambda run: True) is None
            await turn(engine, "never")
            with pytest.raises(TimeoutError):
                await engine.wait_run(number + 1, lambda run: run.terminal, timeout_s=0.05)
            assert engine._waiters == {}

    asyncio.run(main())


def test_waiters_without_hints_go_by_polls() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=QUICK) as engine:
            engine.lanes.first._on_commit = lambda committed: None
            task = await turn(engine)
            waiting = asyncio.create_task(engine.wait_run(task.run.no, lambda run: run.terminal, timeout_s=5))
            await asyncio.sleep(0.03)
            await engine.submit(c.Terminate("r"))
            assert (await waiting) is not None

    asyncio.run(main())


def test_two_engines_on_one_file_see_each_others_work(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s.sqlite"
        async with Engine(durable(path), settings=SLOW) as one, Engine(durable(path), settings=SLOW) as two:
            ready = two.ready_hint()
            await asyncio.sleep(0.2)
            ready.clear()
            await one.submit(c.StartRun("r", "wf"))
            async with asyncio.timeout(5):
                await ready.wait()
            (task,) = (await two.submit(c.Claim("w2", two.secret()))).tasks
            assert (await one.submit(c.Claim("w1", one.secret()))).tasks == []
            waiting = asyncio.create_task(one.wait_run(task.run.no, lambda run: run.terminal, timeout_s=5))
            await asyncio.sleep(0.1)
            await two.submit(c.Finish(task.lease, 1, c.Completed("1")))
            run = await waiting
            assert run is not None
            assert run.result == "1"
        assert_lawful(durable(path))

    asyncio.run(main())


def test_two_engines_race_for_work_and_nothing_is_done_twice(tmp_path: Path) -> None:
    async def main() -> None:
        path, total = tmp_path / "s.sqlite", 60
        done: list[str] = []
        store = durable(path, sync="normal")
        async with (
            Engine(store, settings=QUICK) as one,
            Engine(durable(path, sync="normal"), settings=QUICK) as two,
        ):

            async def work(engine: Engine, worker: str) -> None:
                while len(done) < total:
                    claimed = await engine.submit(c.Claim(worker, engine.secret(), limit=3))
                    for task in claimed.tasks:
                        await engine.submit(c.Finish(task.lease, 1, c.Completed(f'"{worker}"')))
                        done.append(task.run.id)
                    await asyncio.sleep(0 if claimed.tasks else 0.005)

            async def feed(engine: Engine, name: str) -> None:
                for i in range(total // 2):
                    await engine.submit(c.StartRun(f"{name}{i}", "wf"))

            async with asyncio.timeout(30):
                await asyncio.gather(feed(one, "a"), feed(two, "b"), *(work(e, w) for e in (one, two) for w in "xy"))
            assert sorted(done) == sorted({*done})
            assert len(done) == total
        assert_lawful(durable(path))

    asyncio.run(main())


def test_what_a_commit_tells_its_waiters() -> None:
    async def main() -> None:
        told: list[Committed] = []
        async with Engine(MemoryStore(), roles=False) as engine:
            engine.lanes.first._on_commit = told.append
            task = await turn(engine)
            assert (told[-1].runs, told[-1].ready) == (frozenset({1}), False)
            await engine.submit(c.Park(task.lease, 1, task.seen, ("timer:t",), engine.clock_ms() + 9_000, "t"))
            assert told[-1].earliest_due is not None
            await engine.submit(c.Signal("r", "s"))
            assert (told[-1].ready, told[-1].messages) == (True, False)
            await engine.submit(c.Signal("r", "s"))
            assert told[-1].ready, "a claim may have passed over it while it was written"
            await engine.submit(c.Claim("w", engine.secret()))
            await engine.submit(c.Signal("r", "s"))
            assert not told[-1].ready

    asyncio.run(main())


def test_a_read_sees_one_snapshot_however_many_queries_it_makes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(durable(tmp_path / "s.sqlite", sync="normal"), roles=False) as engine:
            await engine.submit(c.StartRun("r", "wf"))

            def query(reader: Reader) -> list[tuple[int, int]]:
                seen = [(reader.others(["nobody"]), len(reader.entries(1)))]
                answer: Future[c.Signaled] = Future()
                engine.lanes.submit(c.Signal("r", "s"), answer, None)
                assert answer.result(timeout=10).seq
                return [*seen, (reader.others(["nobody"]), len(reader.entries(1)))]

            assert await engine.read(query) == [(1, 1), (1, 1)]
            assert await engine.read(query, snapshot=False) == [(2, 2), (3, 3)]

    asyncio.run(main())


def test_a_read_whose_thread_begins_after_the_engine_closed_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for ever for a reader, and the engine for it."""
    begun, gone = threading.Event(), threading.Event()

    async def main() -> None:
        engine = Engine(durable(tmp_path / "s.sqlite"))
        await engine.__aenter__()
        read, close = engine._with_reader, engine._close_readers

        def mine(reader: Reader) -> Any:
            raise AssertionError("nobody reads any more")

        def late(query: Any, snapshot: bool) -> Any:
            if query is mine:
                begun.set()
                gone.wait()
            return read(query, snapshot)

        def closes() -> None:
            close()
            gone.set()

        monkeypatch.setattr(engine, "_with_reader", late)
        monkeypatch.setattr(engine, "_close_readers", closes)
        reading = asyncio.create_task(engine.read(mine))
        await asyncio.to_thread(begun.wait)
        await engine.close()
        with pytest.raises(Unavailable, match="closed"):
            await reading

    asyncio.run(asyncio.wait_for(main(), 10))

"""The lane: many callers, one commit; failures of a batch, and whom they hit (laws 7 and 10)."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.engine import Engine
from stepwell.engine.lane import Lane
from stepwell.kernel import decide as door
from stepwell.model import commands as c
from stepwell.model.errors import Internal, Invalid, StepwellError, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import Broken, Refused, Retry
from tests.support import assert_lawful, durable

from .faulty import FaultyStore, Gate, refuse_run, wait_until


def start(name: str) -> c.StartRun:
    return c.StartRun(name, "wf")


async def gathered(engine: Engine, *commands: c.Command) -> list[Any]:
    """Replies and refusals of commands that are sent at once."""
    return await asyncio.gather(*(engine.submit(command) for command in commands), return_exceptions=True)


async def together(engine: Engine, gate: Gate, *commands: c.Command) -> list[Any]:
    """The same, as one batch for certain: they are queued while the lane is busy."""
    gate.close()
    first = asyncio.ensure_future(engine.submit(c.SyncManifests(())))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    answers = [engine.submit(command) for command in commands]
    gate.open()
    await first
    return await asyncio.gather(*answers, return_exceptions=True)


def runs(engine: Engine) -> Any:
    return engine.read(lambda reader: [run.id for run in reader.scan_runs()])


def test_many_callers_share_few_commits(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(durable(tmp_path / "s.sqlite"), roles=False) as engine:
            replies = await gathered(engine, *(start(f"r{i}") for i in range(300)))
            assert all(reply.created for reply in replies)
            assert engine.lanes.commits < 150
            assert await engine.read(lambda reader: reader.others(["nobody"])) == engine.lanes.commits
            assert engine.lanes.timings.commands == 300

    asyncio.run(main())


def test_a_batch_that_changes_nothing_is_no_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(durable(tmp_path / "s.sqlite"), roles=False) as engine:
            await gathered(engine, c.Claim("w", "s"), c.Sweep(), c.Signal("nobody", "s"))
            assert engine.lanes.commits == 0
            assert await engine.read(lambda reader: reader.others(["nobody"])) == 0

    asyncio.run(main())


def test_a_batch_is_no_larger_than_its_bound() -> None:
    async def main() -> None:
        gate = Gate()
        async with Engine(MemoryStore(), settings=Settings(batch_commands=10), fault=gate, roles=False) as engine:
            await together(engine, gate, *(start(f"r{i}") for i in range(45)))
            assert engine.lanes.commits == 5

    asyncio.run(main())


def guilty_by_nature(folder: Path) -> tuple[FaultyStore, c.Command]:
    return FaultyStore(folder), c.StartRun("guilty", "wf", due_at=1 << 70)


def guilty_by_constraint(folder: Path) -> tuple[FaultyStore, c.Command]:
    return FaultyStore(folder, refuse_run("guilty")), start("guilty")


@pytest.mark.parametrize("guilty", [guilty_by_nature, guilty_by_constraint])
def test_of_a_batch_that_the_store_refuses_only_the_guilty_command_fails(
    tmp_path: Path, guilty: Callable[[Path], tuple[FaultyStore, c.Command]]
) -> None:
    store, command = guilty(tmp_path)

    async def main() -> None:
        gate = Gate()
        async with Engine(store, fault=gate, roles=False) as engine:
            replies = await together(engine, gate, start("a"), command, start("b"), c.Signal("a", "s"))
            assert [type(reply) for reply in replies] == [c.Started, Invalid, c.Started, c.Signaled]
            assert replies[1].hint
            assert await runs(engine) == ["a", "b"]
            assert engine.trouble is None
            assert (await engine.submit(start("after"))).created
        assert_lawful(store)

    asyncio.run(main())


def test_a_command_of_a_wrong_shape_hits_nobody_else() -> None:
    async def main() -> None:
        gate = Gate()
        async with Engine(MemoryStore(), fault=gate, roles=False) as engine:
            odd: Any = ["a list"]
            replies = await together(engine, gate, start("a"), c.Signal(odd, "s"), start(odd), start("b"))
            assert isinstance(replies[1], StepwellError)
            assert isinstance(replies[2], StepwellError)
            assert await runs(engine) == ["a", "b"]

    asyncio.run(main())


def test_poison_in_a_batch_is_told_to_its_sender_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(unit: Any, command: Any, now: int) -> None:
        unit.runs.edit(1).status = "failed"
        raise ZeroDivisionError("poison")

    rules: dict[type[c.Command], Any] = door.RULES
    kind: type[c.Command] = c.HoldRun
    monkeypatch.setitem(rules, kind, poison)

    async def main() -> None:
        gate = Gate()
        async with Engine(MemoryStore(), fault=gate, roles=False) as engine:
            await engine.submit(start("a"))
            replies = await together(engine, gate, c.Signal("a", "s"), c.HoldRun("a"), start("b"))
            assert [type(reply) for reply in replies] == [c.Signaled, Internal, c.Started]
            run = await engine.read(lambda reader: reader.run("main", "a"))
            assert run is not None
            assert run.status == "queued"
        assert_lawful(engine.store)

    asyncio.run(main())


def test_a_full_queue_is_unavailable_at_once_and_loses_nothing() -> None:
    async def main() -> None:
        gate, settings = Gate(), Settings(queue_commands=5)
        async with Engine(MemoryStore(), settings=settings, fault=gate, roles=False) as engine:
            gate.close()
            under_way = asyncio.ensure_future(engine.submit(start("first")))
            assert await asyncio.to_thread(gate.reached.wait, 10)
            queued = [asyncio.ensure_future(engine.submit(start(f"r{i}"))) for i in range(5)]
            await asyncio.sleep(0)
            assert engine.lanes.depth == 5
            with pytest.raises(Unavailable, match="5 commands wait") as caught:
                await engine.submit(start("too many"))
            assert "back-off" in caught.value.hint
            sweep = asyncio.ensure_future(engine.submit(c.Sweep()))
            await asyncio.sleep(0)
            gate.open()
            await asyncio.gather(under_way, *queued, sweep)
            assert len(await runs(engine)) == 6
            assert (await engine.submit(start("again"))).created

    asyncio.run(main())


@pytest.mark.parametrize("lost", [("before",), ("after",), ("before", "before", "after"), ("before", "after")])
def test_a_lost_commit_answer_has_exactly_one_effect(tmp_path: Path, lost: tuple[str, ...]) -> None:
    store = FaultyStore(tmp_path)

    async def main() -> None:
        async with Engine(store, roles=False) as engine:
            await engine.submit(start("r"))
            store.sessions[0].lost = lost
            assert (await engine.submit(c.Signal("r", "once"))).seq == 2
            assert (await engine.submit(c.Signal("r", "next"))).seq == 3
            entries = await engine.read(lambda reader: reader.entries(1))
            assert [entry.kind for entry in entries] == ["run.created", "signal.received", "signal.received"]
            assert await engine.read(lambda reader: reader.others(["nobody"])) == 3
            assert engine.trouble is None
        assert_lawful(store)

    asyncio.run(main())


@pytest.mark.parametrize("act", ["begin", "flush", "commit"])
def test_a_broken_store_stops_the_lane_and_says_so(tmp_path: Path, act: str) -> None:
    broken = [False]

    def plan(point: str, unit: Any) -> None:
        if broken[0] and point == act:
            raise Broken("no space left on device")

    store = FaultyStore(tmp_path, plan)

    async def main() -> None:
        gate = Gate()
        async with Engine(store, fault=gate, roles=False) as engine:
            await engine.submit(start("before"))
            broken[0] = True
            replies = await gathered(engine, *(start(f"r{i}") for i in range(4)))
            assert {type(reply) for reply in replies} == {Unavailable}
            assert "no space left" in (engine.trouble or "")
            broken[0] = False
            with pytest.raises(Unavailable, match="no space left"):
                await engine.submit(start("after"))
            assert await runs(engine) == ["before"]
        assert_lawful(store)

    asyncio.run(main())


@pytest.mark.parametrize(("times", "succeeds"), [(1, True), (5, True), (6, False)])
def test_a_busy_store_is_tried_again_so_many_times(tmp_path: Path, times: int, succeeds: bool) -> None:
    left = [0]

    def plan(point: str, unit: Any) -> None:
        if point == "flush" and left[0] > 0:
            left[0] -= 1
            raise Retry("database is locked")

    store = FaultyStore(tmp_path, plan)

    async def main() -> None:
        async with Engine(store, roles=False) as engine:
            await engine.submit(start("r"))
            left[0] = times
            if succeeds:
                assert (await engine.submit(c.Signal("r", "s"))).seq == 2
            else:
                with pytest.raises(Unavailable, match=r"6 tries: database is locked"):
                    await engine.submit(c.Signal("r", "s"))
            assert left[0] == 0
            assert engine.trouble is None
            head = 2 if succeeds else 1
            assert (await engine.submit(c.Signal("r", "after"))).seq == head + 1

    asyncio.run(main())


def test_a_caller_that_went_away_disturbs_nobody() -> None:
    async def main() -> None:
        gate = Gate()
        async with Engine(MemoryStore(), fault=gate, roles=False) as engine:
            gate.close()
            gone = asyncio.ensure_future(engine.submit(start("gone")))
            assert await asyncio.to_thread(gate.reached.wait, 10)
            stays = asyncio.ensure_future(engine.submit(start("stays")))
            await asyncio.sleep(0)
            gone.cancel()
            gate.open()
            assert (await stays).created
            assert await runs(engine) == ["gone", "stays"]

    asyncio.run(main())


def test_closing_decides_what_is_in_the_queue_and_takes_no_more() -> None:
    async def main() -> None:
        gate, store = Gate(), MemoryStore()
        engine = Engine(store, fault=gate, roles=False)
        async with engine:
            gate.close()
            answers = [asyncio.ensure_future(engine.submit(start(f"r{i}"))) for i in range(20)]
            assert await asyncio.to_thread(gate.reached.wait, 10)
            closing = asyncio.ensure_future(engine.close())
            await asyncio.to_thread(wait_until, lambda: engine.lanes.first._closing)
            with pytest.raises(Unavailable, match="closed"):
                await engine.submit(start("late"))
            gate.open()
            replies = await asyncio.gather(*answers)
            assert all(reply.created for reply in replies)
            await closing
        assert len(store.reader().scan_runs()) == 20

    asyncio.run(main())


def test_an_engine_that_has_not_started_says_so() -> None:
    engine = Engine(MemoryStore())
    with pytest.raises(Unavailable, match="not started") as caught:
        assert engine.trouble is None
    assert "async with" in caught.value.hint


@pytest.mark.parametrize("error", [KeyError("x"), Retry("busy"), Refused("no"), Broken("disk"), Unavailable("away")])
def test_a_hint_that_fails_runs_no_batch_twice_and_the_answers_are_true(error: Exception) -> None:
    def boom(committed: Any) -> None:
        raise error

    async def main() -> None:
        gate = Gate()
        async with Engine(MemoryStore(), fault=gate, roles=False) as engine:
            await engine.submit(start("r"))
            engine.lanes.first._on_commit = boom
            replies = await together(engine, gate, *(c.Signal("r", f"s{i}") for i in range(4)))
            assert [reply.seq for reply in replies] == [2, 3, 4, 5]
            assert len(await engine.read(lambda reader: reader.entries(1))) == 5
            assert engine.trouble is None

    asyncio.run(main())


def test_heartbeats_and_sweeps_pass_a_full_queue() -> None:
    async def main() -> None:
        gate, settings = Gate(), Settings(queue_commands=3)
        async with Engine(MemoryStore(), settings=settings, fault=gate, roles=False) as engine:
            fused = c.ClaimFor("w", 60_000, "secret")
            started = await engine.submit(c.StartRun("r", "wf", claim_for=fused))
            assert started.claim is not None
            gate.close()
            under_way = asyncio.ensure_future(engine.submit(start("first")))
            assert await asyncio.to_thread(gate.reached.wait, 10)
            queued = [engine.submit(start(f"q{i}")) for i in range(3)]
            beat = engine.submit(c.Sync("w", (c.Beat(started.claim.lease),)))
            with pytest.raises(Unavailable, match="commands wait"):
                await engine.submit(start("one too many"))
            gate.open()
            assert (await beat).tasks[0].error is None
            await asyncio.gather(under_way, *queued)

    asyncio.run(main())


class Overtaken(deque[Any]):
    """A queue in which a command arrives only after the lane has been closed."""

    lane: Lane | None = None

    def append(self, item: Any) -> None:
        if self.lane is not None:
            self.lane.close()
        super().append(item)


def test_a_command_that_is_overtaken_by_the_closing_is_answered() -> None:
    queue, answer = Overtaken(), Future[Any]()
    lane = Lane(
        MemoryStore().session("lane"), settings=Settings(), clock_ms=lambda: 1, on_commit=lambda committed: None
    )
    lane._queue = queue
    lane.start()
    queue.lane = lane
    lane.submit(start("r"), answer, None)
    with pytest.raises(Unavailable, match="closed"):
        answer.result(timeout=5)

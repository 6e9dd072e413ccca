"""Several lanes in one engine: which of them decides what, and what they have in common."""

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.engine import Engine
from stepwell.engine.lane import Lane
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, StepwellError, Unavailable
from stepwell.model.rows import Pool, Run
from stepwell.model.settings import Settings, settings_from
from stepwell.store.port import Store
from tests.support.stores import open_store

FOUR = Settings(lanes=4, poll_ms=60_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("postgres", tmp_path)


def lease(run_no: int) -> c.Lease:
    return c.Lease(run_no, 1, 1, "token")


def event(name: str) -> c.NewEvent:
    return c.NewEvent(name, "t", "2026-01-01T00:00:00Z", "hash")


def test_commands_about_one_run_go_to_one_lane_by_its_number_or_by_its_id(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            of, done = engine.lanes.of, c.Completed()
            for no in range(1, 9):
                by_lease = [c.Record(lease(no), 1, 0, ()), c.Park(lease(no), 1, 0), c.Finish(lease(no), 1, done)]
                by_lease += [c.Fail(lease(no), 1, "{}"), c.Release(lease(no), 1), c.Say(lease(no), 0, ())]
                by_lease.append(c.Mutate(lease(no), 1, 0, "k", "f"))
                assert len({of(command).name for command in by_lease}) == 1
                by_id = [c.Signal(f"r{no}", "s"), c.Cancel(f"r{no}"), c.Terminate(f"r{no}"), c.Restart(f"r{no}")]
                by_id += [c.HoldRun(f"r{no}"), c.ReleaseRun(f"r{no}"), c.StartRun(f"r{no}", "wf")]
                assert len({of(command).name for command in by_id}) == 1
                accepts = [c.AcceptEvent(event(f"e{no}")), c.AdoptEvent(event(f"e{no}"), 0), c.ReplayEvent(f"e{no}")]
                assert len({of(command).name for command in accepts}) == 1
            spread = {of(c.Record(lease(no), 1, 0, ())).name for no in range(8)}
            assert spread == set(engine.lanes.names)
            assert {of(c.Claim("w", engine.secret())).name for _ in range(200)} == set(engine.lanes.names)

    asyncio.run(main())


def test_housekeeping_and_heartbeats_are_in_one_queue(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            beats = [c.Sync("w", (c.Beat(lease(no)),)) for no in range(8)]
            for command in (c.Sweep(), c.Fire(), c.Deliver(), c.Promote(), c.Prune(), c.SyncManifests(()), *beats):
                assert engine.lanes.of(command) is engine.lanes.first

    asyncio.run(main())


def test_a_command_that_makes_no_sense_is_refused_by_some_lane(store: Store) -> None:
    nonsense: Any = [["not"], "text"]

    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            for command in (c.Signal(nonsense, "s"), c.Park(nonsense, 1, 0), c.StartRun(nonsense, "wf")):
                with pytest.raises(Invalid):
                    await engine.submit(command)
            assert (await engine.submit(c.StartRun("r", "wf"))).created

    asyncio.run(main())


def test_a_store_of_one_writer_has_one_lane_whatever_is_set(tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("memory", "sqlite"):
            async with Engine(open_store(name, tmp_path), settings=FOUR) as engine:
                assert len(engine.lanes.all) == 1

    asyncio.run(main())


def test_what_several_lanes_commit_is_whole_and_their_numbers_are_summed(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            starts = [engine.submit(c.StartRun(f"r{no}", "wf")) for no in range(200)]
            started = await asyncio.gather(*starts)
            assert len({one.run_no for one in started}) == 200
            signals = [c.Signal(f"r{no}", "s", str(turn)) for turn in range(5) for no in range(200)]
            seqs = await asyncio.gather(*(engine.submit(command) for command in signals))
            assert [one.seq for one in seqs] == [2 + turn for turn in range(5) for _ in range(200)]
            assert all(lane.commits for lane in engine.lanes.all)
            lanes, timings = engine.lanes, engine.lanes.timings
            assert timings.commands == sum(lane.timings.commands for lane in lanes.all) == 1_200
            assert timings.longest_batch == max(lane.timings.longest_batch for lane in lanes.all)
            assert lanes.commits == await engine.read(lambda reader: reader.others(()))
            assert await engine.read(lambda reader: reader.others(lanes.names)) == 0

    asyncio.run(main())


def test_an_engine_is_in_trouble_when_one_lane_is(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            assert engine.trouble is None
            engine.lanes.all[2].stopped = "its disk is full"
            assert engine.trouble == "its disk is full"

    asyncio.run(main())


def test_limits_of_a_pool_are_there_before_whatever_is_sent_after_them(store: Store) -> None:
    """The claims come to lanes that would not know of the limits, had these been sent to one lane only."""

    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            for turn in range(10):
                pool = f"p{turn}"
                sent = [engine.submit(c.SetPool(Pool("main", pool, limit=1), limits_only=True))]
                mine = [c.ClaimFor("w", 60_000, engine.secret()) for _ in range(16)]
                starts = [c.StartRun(f"{pool}.{no}", "wf", pool=pool, claim_for=one) for no, one in enumerate(mine)]
                sent += [engine.submit(start) for start in starts]
                claims = [c.Claim("w", engine.secret(), pools=(pool,), limit=16) for _ in range(8)]
                answers = await asyncio.gather(*sent)
                leased = sum(one.claim is not None for one in answers[1:])
                claimed = await asyncio.gather(*(engine.submit(claim) for claim in claims))
                leased += sum(len(one.tasks) for one in claimed)
                assert leased == 1

    asyncio.run(main())


def test_limits_that_one_lane_cannot_set_are_not_set(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            engine.lanes.all[3].stopped = "away"
            with pytest.raises(Unavailable):
                await engine.submit(c.SetPool(Pool("main", "p", limit=1), limits_only=True))
            answer: Future[Any] = Future()
            engine.lanes.submit(c.SetPool(Pool("main", "p", limit=1), limits_only=True), answer, None)
            assert isinstance(answer.exception(30), StepwellError)

    asyncio.run(main())


def test_a_slot_that_one_lane_frees_is_news_where_another_knows_of_the_limit(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR) as engine:
            await engine.submit(c.SetPool(Pool("main", "p", key_limit=1)))
            for no in range(8):
                await engine.submit(c.StartRun(f"r{no}", "wf", pool="p", pool_key="k"))
            hint, ended = engine.ready_hint(), set[str]()
            async with asyncio.timeout(30):  # a poll comes after a minute
                while len(ended) < 8:
                    hint.clear()
                    for task in (await engine.submit(c.Claim("w", engine.secret(), limit=8))).tasks:
                        await engine.submit(c.Finish(task.lease, 1, c.Completed()))
                        ended.add(task.run.id)
                    if len(ended) < 8:
                        await hint.wait()

    asyncio.run(main())


def test_lanes_that_were_opened_are_closed_when_a_later_one_cannot_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Any] = []
    opened = store.session

    def third_fails(lane: str) -> Any:
        if len(sessions) == 2:
            raise Unavailable("no more connections")
        sessions.append(opened(lane))
        return sessions[-1]

    async def main() -> None:
        monkeypatch.setattr(store, "session", third_fails)
        with pytest.raises(Unavailable, match="no more"):
            async with Engine(store, settings=FOUR):
                pass
        assert all(one._link.db.closed for one in sessions)

    asyncio.run(main())


def test_a_run_in_several_lanes_ends_for_whoever_waits(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=FOUR, roles=False) as engine:
            for no in range(40):
                await engine.submit(c.StartRun(f"r{no}", "wf"))
            tasks = (await engine.submit(c.Claim("w", engine.secret(), limit=40))).tasks
            waits = [asyncio.create_task(engine.wait_end(task.run.no, timeout_s=30)) for task in tasks]
            await asyncio.gather(*(engine.submit(c.Finish(task.lease, 1, c.Completed())) for task in tasks))
            ended = await asyncio.gather(*waits)
            assert all(isinstance(run, Run) and run.status == "completed" for run in ended)

    asyncio.run(main())


@pytest.mark.parametrize("text", ["0", "17", "many"])
def test_how_many_lanes_is_bounded(text: str) -> None:
    with pytest.raises(Invalid, match=r"lanes|LANES"):
        settings_from({"STEPWELL_LANES": text})
    assert settings_from({"STEPWELL_LANES": "16"}).lanes == 16


def test_lanes_end_with_what_is_in_their_queues(store: Store) -> None:
    async def main() -> None:
        engine = Engine(store, settings=FOUR, roles=False)
        async with engine:
            starts = [engine.submit(c.StartRun(f"r{no}", "wf")) for no in range(100)]
        assert all(one.created for one in await asyncio.gather(*starts))
        with pytest.raises(Unavailable):
            await engine.submit(c.StartRun("late", "wf"))
        assert not any(isinstance(lane, Lane) and lane._thread.is_alive() for lane in engine.lanes.all)

    asyncio.run(main())

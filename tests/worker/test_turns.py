"""Hosted turns: lost answers, refusals, stale leases, timers, signals, drains, unknown workflows."""

import asyncio
import itertools
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stepwell.functions.define import Retry
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.errors import Internal, OutOfStep, Unavailable
from stepwell.workflow.context import Context

from .bodies import NEVER_PARKS, SLOW, note, steps, waits
from .hall import Hall, hall
from .loops import on_a_loop
from .site import true

pytestmark = pytest.mark.stores("sqlite", "postgres")


class HeldUp:
    """Holds up the lane in front of a batch, while it is not open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def __call__(self, point: str) -> None:
        if point == "begun":
            self.open.wait(20)


def lose_answers(it: Hall, monkeypatch: pytest.MonkeyPatch, lost: list[c.Command]) -> None:
    """The answer of each numbered write is lost the first time: it was committed, and nobody hears of it."""
    submit = it.engine.lanes.submit
    kinds = c.Record | c.Finish | c.Park

    class Deaf:
        def __init__(self, answer: Any) -> None:
            self._answer = answer

        def done(self) -> bool:
            return False

        def set_result(self, reply: Any, /) -> None:
            self._answer.set_exception(Unavailable("the answer was lost"))

        def set_exception(self, error: BaseException, /) -> None:
            self._answer.set_exception(error)

    def losing(command: c.Command, answer: Any, loop: Any) -> None:
        if isinstance(command, kinds) and not any(command is one for one in lost):
            lost.append(command)
            submit(command, Deaf(answer), loop)
        else:
            submit(command, answer, loop)

    monkeypatch.setattr(it.engine.lanes, "submit", losing)


@on_a_loop
async def test_lost_answers_are_asked_for_again_with_the_same_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[c.Command] = []
    async with hall(tmp_path) as it:
        lose_answers(it, monkeypatch, lost)
        it.work()
        run_id = await it.start(it.workflow(steps), 4)
        assert await it.result(run_id) == 4
        assert len(await it.entries(run_id, "step.completed")) == 4
        assert [type(one) for one in lost] == [c.Record] * 4 + [c.Finish]
        ours = [one for one in it.sent if isinstance(one, c.Record)]
        assert [one.n for one in ours] == [1, 1, 2, 2, 3, 3, 4, 4]
        assert ours[0] is ours[1]


@on_a_loop
async def test_a_store_that_is_away_is_asked_until_it_answers(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        loop = asyncio.get_running_loop()

        async def flow(ctx: Context) -> str:
            return await ctx.step(away)

        async def away() -> str:
            it.away = (c.Record,)
            loop.call_later(0.4, setattr, it, "away", ())
            return "there"

        it.work()
        assert await it.result(await it.start(it.workflow(flow))) == "there"


@on_a_loop
async def test_who_has_lost_the_lease_is_evicted_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return "x"

    async def flow(ctx: Context) -> str:
        return await ctx.step(slow)

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(flow))
        await begun.wait()
        await it.engine.submit(c.Terminate(run_id))
        async with asyncio.timeout(5):
            await stopped.wait()
        await true(lambda: worker.busy == 0)
        assert not [one for one in it.sent if isinstance(one, c.Record | c.Finish | c.Fail | c.Release)]


@on_a_loop
@pytest.mark.parametrize("error", [OutOfStep("lost count", n=1, last=0), Internal("a bug")])
async def test_one_that_has_lost_count_is_given_back_and_goes_on(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("stepwell.worker.turns.BROKEN_HANDLER_MS", 50)
    async with hall(tmp_path) as it:
        submit, refused = it.engine.lanes.submit, list[c.Command]()

        def refusing(command: c.Command, answer: Any, loop: Any) -> None:
            if isinstance(command, c.Record) and not refused:
                refused.append(command)
                loop.call_soon(answer.set_exception, error)
            else:
                submit(command, answer, loop)

        monkeypatch.setattr(it.engine.lanes, "submit", refusing)
        it.work()
        run_id = await it.start(it.workflow(steps), 2)
        assert await it.result(run_id) == 2
        (ended,) = await it.entries(run_id, "attempt.ended")
        assert "released" in ended.data


@on_a_loop
async def test_an_unknown_workflow_is_left_to_others(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.work(registry=Registry())
        run_id = await it.start(it.workflow(steps), 1)
        await asyncio.sleep(0.2)
        assert await it.kinds(run_id) == ["run.created"], "it is not even claimed"
        it.work()
        assert await it.result(run_id) == 1


# ── signals and timers ───────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_a_resident_run_hears_of_a_signal_at_once(tmp_path: Path) -> None:
    """With a poll of 5 s: only the hint of the commit can be that quick."""
    async with hall(tmp_path, settings=SLOW) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(waits))
        await true(lambda: len(it.turns[0].residents) == 1)
        assert worker.busy == 0
        begun = time.monotonic()
        await it.signal(run_id, "go", "now")
        assert await it.result(run_id) == "now"
        assert time.monotonic() - begun < 1
        assert "run.parked" not in await it.kinds(run_id)


@on_a_loop
async def test_signals_in_the_same_moment_are_one_question(tmp_path: Path) -> None:
    async def hears(ctx: Context) -> list[Any]:
        return [await ctx.wait_for_signal("go") for _ in range(20)]

    async with hall(tmp_path, settings=SLOW) as it:
        it.work()
        run_id = await it.start(it.workflow(hears))
        await true(lambda: len(it.turns[0].residents) == 1)
        await asyncio.gather(*(it.signal(run_id, "go", n) for n in range(20)))
        assert sorted(await it.result(run_id)) == list(range(20))
        assert len([one for one in it.sent if isinstance(one, c.Sync)]) < 10


@on_a_loop
async def test_a_signal_in_the_same_commit_behind_a_write_is_heard_of(tmp_path: Path) -> None:
    """The hint comes before the answer of the write, which does not tell of what came after it."""
    lane = HeldUp()

    async def flow(ctx: Context) -> Any:
        await ctx.step(closes)
        return await ctx.wait_for_signal("go")

    async def closes() -> None:
        lane.open.clear()

    async with hall(tmp_path, settings=SLOW, fault=lane) as it:
        it.work()
        run_id = await it.start(it.workflow(flow))
        await true(lambda: not lane.open.is_set())
        blocked = asyncio.ensure_future(it.signal(run_id, "other"))
        await true(lambda: any(isinstance(one, c.Record) for one in it.sent))
        behind = asyncio.ensure_future(it.signal(run_id, "go", 7))
        await asyncio.sleep(0)
        lane.open.set()
        begun = time.monotonic()
        assert await it.result(run_id) == 7
        assert time.monotonic() - begun < 2
        await asyncio.gather(blocked, behind)


@on_a_loop
async def test_signals_of_another_process_come_with_the_heartbeats(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        it.work()
        run_id = await it.start(it.workflow(waits))
        await true(lambda: len(it.turns[0].residents) == 1)
        number = (await it.run(run_id)).no
        it.engine.unlisten(number, it.engine._listeners[number])
        await it.signal(run_id, "go", "polled")
        assert await it.result(run_id) == "polled"


@on_a_loop
async def test_timers_fire_on_time_while_resident(tmp_path: Path) -> None:
    async def naps(ctx: Context) -> list[int]:
        began = ctx.now()
        await asyncio.gather(*(asyncio.sleep(n / 100) for n in range(1, 11)))
        await ctx.sleep(0.15)
        return [round((ctx.now() - began).total_seconds() * 1000)]

    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        it.work()
        run_id = await it.start(it.workflow(naps))
        ((took,),) = [await it.result(run_id)]
        assert 250 <= took < 600
        assert len(await it.entries(run_id, "timer.fired")) == 11


@on_a_loop
async def test_the_retry_of_a_step_waits_for_its_time(tmp_path: Path) -> None:
    at: list[float] = []

    async def fails_twice() -> str:
        at.append(time.monotonic())
        if len(at) < 3:
            raise ValueError("not yet")
        return "third"

    async def flow(ctx: Context) -> str:
        return await ctx.options(retry=Retry(3, initial=0.1, factor=1.0)).step(fails_twice)

    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await it.start(it.workflow(flow))) == "third"
        assert all(later - sooner >= 0.045 for sooner, later in itertools.pairwise(at))


# ── the end of a worker ──────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_who_stops_parks_what_only_waits(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(waits))
        await true(lambda: len(it.turns[0].residents) == 1)
        begun = time.monotonic()
        await worker.stop(drain_s=10)
        assert time.monotonic() - begun < 2
        assert (await it.run(run_id)).status == "waiting"
        assert (await it.kinds(run_id))[-1] == "run.parked"


@on_a_loop
async def test_what_runs_is_handed_back_after_the_drain_with_what_it_has_done(tmp_path: Path) -> None:
    let_go = asyncio.Event()
    runs: list[str] = []

    async def slow() -> str:
        runs.append("slow")
        await let_go.wait()
        return "slow"

    async def flow(ctx: Context) -> list[str]:
        return [await ctx.step(note), await ctx.step(slow)]

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(flow))
        await true(lambda: runs)
        await worker.stop(drain_s=0.1)
        kinds = await it.kinds(run_id)
        assert kinds == ["run.created", "attempt.started", "step.completed", "attempt.ended"]
        let_go.set()
        it.work()
        assert await it.result(run_id) == ["x", "slow"]
        assert runs == ["slow", "slow"]


@on_a_loop
async def test_who_hands_back_writes_what_is_done_and_begins_nothing_new(tmp_path: Path) -> None:
    runs: list[str] = []

    async def first() -> None:
        runs.append("first")
        it.away = (c.Record,)

    def second() -> None:
        runs.append("second")

    async def flow(ctx: Context) -> None:
        await ctx.step(first)
        await ctx.step(second)

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(flow))
        await true(lambda: runs)
        asyncio.get_running_loop().call_later(0.3, setattr, it, "away", ())
        await worker.stop(drain_s=0.05)
        assert runs == ["first"]
        kinds = await it.kinds(run_id)
        assert kinds == ["run.created", "attempt.started", "step.completed", "attempt.ended"]


@on_a_loop
async def test_a_run_with_steps_left_ends_within_the_drain(tmp_path: Path) -> None:
    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.2)
        return "x"

    async def flow(ctx: Context) -> str:
        return await ctx.step(slow) + await ctx.step(note)

    async with hall(tmp_path) as it:
        begun = asyncio.Event()
        worker = it.work()
        run_id = await it.start(it.workflow(flow))
        await begun.wait()
        await worker.stop(drain_s=5)
        assert (await it.run(run_id)).status == "completed"

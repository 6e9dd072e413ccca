"""53 to 70: what runs workflows, steps, sleeps and signals (source: spec orchestrator E.4, A.6 to A.8)."""

import asyncio
import gc
import logging
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from stepwell import Context, NotFound, Retry, RunError, StepError
from stepwell.client.stepwell import SLOTS
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from tests.conformance_workflow.support import Place, entries, on_a_loop, refused, resting, seen, story
from tests.worker.site import true


async def one() -> int:
    return 1


# ── the worker ───────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_53_a_run_steps_sleeps_waits_and_goes_on_as_its_journal_tells(place: Place) -> None:
    ran: list[str] = []

    async def charge() -> str:
        ran.append("charge")
        return "receipt"

    async def ship(to: str) -> str:
        ran.append("ship")
        return f"shipped to {to}"

    @place.app.workflow
    async def order(ctx: Context) -> str:
        await ctx.step(charge)
        await ctx.sleep(0.1, name="cooldown")
        to: str = await ctx.wait_for_signal("approved")
        return await ctx.step(ship, to)

    async with place.open() as sw:
        run = await sw.start(order)
        await seen(run, "timer.fired")
        await run.signal("approved", "ann")
        assert await run.result() == "shipped to ann"
        assert ran == ["charge", "ship"]
        assert await story(run) == [
            "run.created",
            "step.completed",
            "timer.fired",
            "signal.received",
            "step.completed",
            "run.completed",
        ]
        keys = [entry.key for entry in await entries(run) if entry.key]
        assert keys == ["charge#0", "cooldown#0", "ship#0"]


@on_a_loop
async def test_54_slots_are_filled_before_any_is_free_and_never_exceeded(place: Place) -> None:
    running, most, full = 0, 0, asyncio.Event()

    @place.app.action
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1
        return n

    @place.app.workflow
    async def fan(ctx: Context, n: int) -> list[int]:
        return await asyncio.gather(*(ctx.call(work, i) for i in range(n)))

    @place.app.workflow
    async def waits(ctx: Context) -> Any:
        return await ctx.wait_for_signal("never")

    async with place.open(slots=3) as sw:
        waiting = [await sw.start(waits) for _ in range(9)]  # who only waits takes no slot
        assert await (await sw.start(fan, 10)).result() == list(range(10))
        assert [(await run.status()).ended for run in waiting] == [False] * 9
    assert most == 3


def test_55_defaults() -> None:
    settings = Settings()
    assert (SLOTS, settings.poll_ms, settings.beat_ms, settings.lease_ms) == (16, 1_000, 40_000, 120_000)


@on_a_loop
async def test_56_who_has_lost_its_lease_writes_no_more(place: Place) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return 1

    @place.app.workflow
    async def flow(ctx: Context) -> int:
        return await ctx.step(slow)

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        run = await sw.start(flow)
        await begun.wait()
        await run.terminate()
        await stopped.wait()
        assert (await entries(run))[-1].kind == "run.canceled"
    assert not [one for one in place.sent if isinstance(one, c.Record | c.Finish | c.Fail)]


@on_a_loop
async def test_57_heartbeats_that_do_not_get_through_lose_nothing_yet(place: Place) -> None:
    ran = 0

    @place.app.action
    async def slow() -> str:
        nonlocal ran
        ran += 1
        place.away = (c.Sync,)
        await true(lambda: sum(isinstance(one, c.Sync) for one in place.sent) >= 3)
        place.away = ()
        return "done"

    @place.app.workflow
    async def flow(ctx: Context) -> str:
        return await ctx.call(slow)

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        run = await sw.start(flow)
        assert await run.result() == "done"
    assert ran == 1


# ── the context ──────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
@pytest.mark.parametrize("call", ["sleep", "sleep_until", "wait_for_signal", "step", "call"])
async def test_58_the_context_is_refused_inside_a_step_and_fails_step_and_run(place: Place, call: str) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None:
        async def charge() -> None:
            given: dict[str, tuple[Any, ...]] = {"sleep": (1,), "step": (one,)}
            await getattr(ctx, call)(*given.get(call, ("x",)))

        await ctx.step(charge)

    async with place.open() as sw:
        run = await sw.start(flow)
        said = f'ctx.{call}() cannot be called inside ctx.step("charge#0")'
        error = await refused(run.result(), RunError, said)
        assert error.type == "NondeterministicCall"
        assert await story(run) == ["run.created", "step.failed", "run.failed"]


@on_a_loop
async def test_59_a_sleep_needs_no_name_to_be_safe(place: Place) -> None:
    @place.app.workflow
    async def naps(ctx: Context) -> int:
        for _ in range(3):
            await ctx.sleep(0.01)
        return 3

    async with place.open() as sw:
        run = await sw.start(naps)
        assert await run.result() == 3
        assert [one.key for one in await entries(run, "timer")] == ["sleep#0", "sleep#1", "sleep#2"]


@on_a_loop
async def test_60_no_time_to_sleep_is_no_entry(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    @place.app.workflow
    async def naps(ctx: Context) -> None:
        await ctx.sleep(0)
        await ctx.sleep(timedelta(seconds=-1))
        await ctx.sleep_until(ctx.now() - timedelta(days=1))

    caplog.set_level(logging.WARNING)
    async with place.open() as sw:
        run = await sw.start(naps)
        await run.result()
        assert await story(run) == ["run.created", "run.completed"]
    (told,) = caplog.records
    assert "asked to sleep for -1.0 s: goes on at once" in told.getMessage()


@on_a_loop
async def test_61_a_name_that_comes_again_is_another_step(place: Place) -> None:
    ran = 0

    async def count() -> int:
        nonlocal ran
        ran += 1
        return ran

    @place.app.workflow
    async def flow(ctx: Context) -> list[int]:
        found = [await ctx.step("count", count) for _ in range(2)]
        await ctx.wait_for_signal("go")
        return [*found, await ctx.step("count", count)]

    async with place.open() as sw:
        run = await sw.start(flow)
        await seen(run, "step.completed", 2)
        await run.signal("go")
        assert await run.result() == [1, 2, 3]


@on_a_loop
async def test_62_a_failed_step_replays_as_the_same_error(place: Place) -> None:
    lives: list[tuple[Any, ...]] = []

    async def declined() -> int:
        raise ValueError("card declined")

    @place.app.workflow
    async def flow(ctx: Context) -> str:
        try:
            await ctx.options(retry=Retry(2, initial=0)).step(declined)
        except StepError as error:
            lives.append((error.type, error.message, error.attempts, error.traceback, str(error)))
        return await ctx.wait_for_signal("go", str)

    async with place.open() as sw:
        run = await sw.start(flow)
        await seen(run, "step.failed")
        await run.signal("go", "caught")
        assert await run.result() == "caught"
    assert lives[0][:3] == ("ValueError", "card declined", 2)
    assert "in declined" in lives[0][3]
    assert lives == lives[:1] * len(lives)
    assert len(lives) == (1 if place.stays else 2)


@on_a_loop
async def test_63_parallel_steps_run_together_and_keep_their_order(place: Place) -> None:
    together = asyncio.Barrier(3)

    async def step(n: int) -> int:
        async with together:
            pass
        await asyncio.sleep(0.03 * (3 - n))
        return n

    @place.app.workflow
    async def flow(ctx: Context) -> list[int]:
        found = await asyncio.gather(*(ctx.step(step, n) for n in range(3)))
        await ctx.sleep(0.01)
        return found

    async with place.open() as sw:
        assert await (await sw.start(flow)).result() == [0, 1, 2]


@on_a_loop
async def test_64_a_broad_except_does_not_swallow_a_wait(place: Place) -> None:
    swallowed: list[str] = []

    async def never() -> None:
        swallowed.append("a step in an except block")

    @place.app.workflow
    async def broad(ctx: Context) -> Any:
        try:
            return await ctx.wait_for_signal("go")
        except Exception as error:
            swallowed.append(repr(error))

    @place.app.workflow
    async def broadest(ctx: Context) -> Any:
        try:
            return await ctx.wait_for_signal("go")
        except BaseException:  # runs when the body leaves the memory: nothing durable comes of it
            await ctx.step(never)
            raise

    async with place.open() as sw:
        for workflow in (broad, broadest):
            run = await sw.start(workflow)
            await (seen(run, "attempt.started") if place.stays else resting(run))
            await run.signal("go", "gone")
            assert await run.result() == "gone"
            assert await story(run) == ["run.created", "signal.received", "run.completed"]
    assert swallowed == []


@on_a_loop
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's own complaint about it
async def test_64_a_body_that_catches_all_for_ever_holds_up_nobody(place: Place) -> None:
    @place.app.workflow
    async def endless(ctx: Context) -> Any:
        while True:
            try:
                return await ctx.wait_for_signal("go")
            except BaseException:
                continue

    @place.app.workflow
    async def endless_tasks(ctx: Context) -> Any:
        while True:
            try:
                return await asyncio.create_task(ctx.wait_for_signal("go"))
            except BaseException:
                continue

    async with place.open() as sw:
        for workflow in (endless, endless_tasks):
            run = await sw.start(workflow)
            await (seen(run, "attempt.started") if place.stays else resting(run))
            await run.signal("go", "gone")
            assert await run.result() == "gone"
    gc.collect()


@on_a_loop
async def test_65_a_run_rests_only_when_its_steps_are_settled(disk: Place) -> None:
    ran, settle = 0, asyncio.Event()

    async def slow() -> int:
        nonlocal ran
        ran += 1
        await settle.wait()
        return ran

    @disk.app.workflow
    async def flow(ctx: Context) -> int:
        found, _ = await asyncio.gather(ctx.step(slow), ctx.wait_for_signal("go"))
        return found

    async with disk.open() as sw:
        run = await sw.start(flow)
        await true(lambda: ran == 1)
        await asyncio.sleep(0.2)  # as long as many runs take to rest
        settle.set()
        await resting(run)
        await run.signal("go")
        assert await run.result() == 1
        kinds = [one.kind for one in await entries(run)]
        assert ran == 1
        assert kinds.index("step.completed") < kinds.index("run.parked")
        assert kinds.index("run.parked") < kinds.index("signal.received")


@on_a_loop
@pytest.mark.parametrize("command", [c.Record, c.Finish, c.Claim, c.Park, c.Sync])
async def test_66_a_kernel_that_is_away_is_asked_until_it_answers(place: Place, command: type[c.Command]) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> int:
        await ctx.sleep(0.01)
        return await ctx.step(one)

    async with place.open() as sw:
        place.away = (command,)
        asyncio.get_running_loop().call_later(0.3, setattr, place, "away", ())
        run = await sw.start(flow)
        assert await run.result() == 1
        assert len(await entries(run, "step.completed")) == 1


@on_a_loop
async def test_67_a_drain_lets_end_what_runs_or_hands_it_back(disk: Place) -> None:
    begun, ran = asyncio.Event(), 0

    async def slow() -> int:
        nonlocal ran
        ran += 1
        begun.set()
        await asyncio.sleep(0.3)
        return ran

    @disk.app.workflow
    async def flow(ctx: Context) -> int:
        return await ctx.step(slow)

    async with disk.open(drain=10) as sw:
        drained = await sw.start(flow)
        await begun.wait()
    async with disk.open(worker=False) as sw:
        assert [one.kind for one in await entries(sw.handle(drained.id), "step")] == ["step.completed"]
    begun.clear()
    async with disk.open(drain=0) as sw:
        handed_back = await sw.start(flow)
        await begun.wait()
    async with disk.open() as sw:
        assert await sw.handle(drained.id).result() == 1
        assert await sw.handle(handed_back.id).result() == 3  # at least once, and recorded once
        assert len(await entries(sw.handle(handed_back.id), "step.completed")) == 1


@on_a_loop
@pytest.mark.parametrize("steps", [5, 200])
async def test_68_a_resume_costs_the_same_however_many_steps_there_are(disk: Place, steps: int) -> None:
    @disk.app.workflow
    async def flow(ctx: Context, n: int) -> int:
        found = [await ctx.step(one) for _ in range(n)]
        await ctx.wait_for_signal("go")
        return sum(found)

    async with disk.open() as sw:
        run = await sw.start(flow, steps)
        await resting(run)
        disk.sent.clear()
        await run.signal("go")
        assert await run.result() == steps
    ours = [type(one) for one in disk.sent if isinstance(one, c.Record | c.Mutate | c.Finish | c.Park)]
    assert ours == [c.Finish], "the journal came with the claim"


@on_a_loop
async def test_69_result_waits_raises_and_has_a_timeout(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context, fails: bool) -> str:
        await ctx.wait_for_signal("go")
        if fails:
            raise ValueError("no")
        return "yes"

    async with place.open() as sw:
        good, bad = await sw.start(flow, False), await sw.start(flow, True)
        await refused(good.result(timeout=0.05), TimeoutError, good.id)
        for run in (good, bad):
            await run.signal("go")
        assert await good.result() == "yes"
        error = await refused(bad.result(), RunError, "no")
        assert error.type == "ValueError"
        await refused(sw.handle("nobody").result(), NotFound, "nobody")


@on_a_loop
async def test_70_blocking_steps_have_threads_and_the_lease_goes_on(place: Place) -> None:
    threads: set[int] = set()

    def blocks() -> int:
        threads.add(threading.get_ident())
        time.sleep(0.3)
        return 1

    async def nonblocking() -> int:
        threads.add(threading.get_ident())
        return 2

    @place.app.action
    def blocks_too() -> int:
        return blocks() + 2

    @place.app.workflow
    async def flow(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(blocks), ctx.step(nonblocking), ctx.call(blocks_too)))

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        assert await (await sw.start(flow)).result() == [1, 2, 3]
    assert len(threads) == 3
    assert threading.get_ident() in threads
    assert sum(isinstance(one, c.Sync) for one in place.sent) >= 3

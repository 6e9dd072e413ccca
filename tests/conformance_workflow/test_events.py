"""111 to 120: signals (source: spec orchestrator E.6, B.10)."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from stepwell import Conflict, Context, NotFound, NotJson, Signal, StepwellError, TooLarge
from tests.conformance_workflow.support import Place, entries, on_a_loop, refused, resting, seen, story


@dataclass
class Decision:
    approved: bool


approval = Signal("approval", Decision)


@on_a_loop
@pytest.mark.parametrize("early", [True, False])
async def test_111_a_signal_is_the_same_before_and_after_its_wait(place: Place, early: bool) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> Decision:
        await ctx.wait_for_signal("go")
        return await ctx.wait_for_signal(approval)

    async with place.open() as sw:
        run = await sw.start(flow)
        if early:
            await run.signal(approval, Decision(True))
            await run.signal("go")
        else:
            parks = not place.stays
            await seen(run, "run.parked" if parks else "attempt.started")
            await run.signal("go")
            await seen(run, "run.parked", 2) if parks else await asyncio.sleep(0)
            await run.signal(approval, Decision(True))
        assert await run.result() == Decision(True)


@on_a_loop
async def test_112_signals_of_a_name_come_in_order_one_for_each_wait_and_names_apart(place: Place) -> None:
    said: list[str] = []

    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        async def hears(name: str) -> Any:
            value = await ctx.wait_for_signal(name)
            await ctx.step("said", said.append, f"{name} {value}")
            return value

        a, b = await asyncio.gather(hears("a"), hears("b"))
        return [a, b, await hears("a"), await hears("a")]

    async with place.open() as sw:
        run = await sw.start(flow)
        for n in (1, 2, 3):
            await run.signal("a", n)
        await seen(run, "step.completed")
        assert said == ["a 1"], "who waits for b holds up nobody"
        await run.signal("b", "b")
        assert await run.result() == [1, "b", 2, 3]
    assert said == ["a 1", "b b", "a 2", "a 3"]


@on_a_loop
async def test_113_a_signal_to_nobody_or_too_late_is_refused(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None: ...

    async with place.open() as sw:
        await refused(sw.handle("nobody").signal("go"), NotFound, "nobody")
        run = await sw.start(flow)
        await run.result()
        await refused(run.signal("go"), Conflict, "completed")


@on_a_loop
async def test_114_values_are_checked_on_both_sides_and_none_is_the_default(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        told: list[Any] = [await ctx.wait_for_signal("plain")]
        try:
            await ctx.wait_for_signal(approval)
        except StepwellError as error:
            told.append(error.code)
        decision = await ctx.wait_for_signal(approval)
        return [*told, decision.approved]

    async with place.open() as sw:
        run = await sw.start(flow)
        wrong: Any = {"approved": "perhaps"}
        await refused(run.signal(approval, wrong), NotJson)
        await run.signal("plain")
        await run.signal("approval", wrong)  # by its bare name it is not checked here
        await run.signal("approval", {"approved": True, "since": 1})
        assert await run.result() == [None, "result_mismatch", True]


@on_a_loop
async def test_115_waits_of_one_name_share_what_comes_for_it(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        return await asyncio.gather(*(ctx.wait_for_signal("go") for _ in range(3)))

    async with place.open() as sw:
        run = await sw.start(flow)
        await run.signal("go", 1)
        await resting(run) if not place.stays else None
        await run.signal("go", 2)
        await run.signal("go", 3)
        assert await run.result() == [1, 2, 3]


@on_a_loop
async def test_116_a_payload_that_is_too_large_is_refused_and_does_not_touch_the_run(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> str:
        return await ctx.wait_for_signal("go", str)

    place.set(payload_bytes=10_000)
    async with place.open() as sw:
        run = await sw.start(flow)
        await refused(run.signal("go", "x" * 20_000), TooLarge, "payload", "10,000")
        await run.signal("go", "small")
        assert await run.result() == "small"
        assert await story(run) == ["run.created", "signal.received", "run.completed"]


@on_a_loop
async def test_117_a_timeout_is_the_same_in_each_life_and_what_comes_late_is_kept(place: Place) -> None:
    lives: list[str] = []

    @place.app.workflow
    async def flow(ctx: Context) -> str:
        try:
            lives.append(await ctx.wait_for_signal("go", str, timeout=0.05))
        except TimeoutError as error:
            lives.append(type(error).__name__)
        await ctx.wait_for_signal("look")
        return f"{lives[-1]}, then {await ctx.wait_for_signal('go', str)}"

    async with place.open() as sw:
        run = await sw.start(flow)
        await seen(run, "timer.fired")
        await run.signal("go", "late")
        await run.signal("look")
        assert await run.result() == "SignalTimeout, then late"
    assert set(lives) == {"SignalTimeout"}


@on_a_loop
async def test_118_the_losers_of_a_race_take_nothing(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        waits = {asyncio.create_task(ctx.wait_for_signal(name)): name for name in ("a", "b", "c")}
        done, lost = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in lost:
            task.cancel()
        await asyncio.wait(lost)
        winner = done.pop()
        return [waits[winner], winner.result(), await ctx.wait_for_signal("a"), await ctx.wait_for_signal("c")]

    async with place.open() as sw:
        run = await sw.start(flow)
        await run.signal("b", 1)
        await run.signal("c", 2)
        await run.signal("a", 3)
        assert await run.result() == ["b", 1, 3, 2]


@on_a_loop
async def test_119_what_nobody_read_is_told_at_the_end(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None:
        await ctx.wait_for_signal("go")

    async with place.open() as sw:
        run = await sw.start(flow)
        await run.signal("other", 1)
        await run.signal("other", 2)
        await run.signal("go")
        await run.result()
        (end,) = await entries(run, "run.completed")
        assert end.body["unread"] == ["other", "other"]


@on_a_loop
async def test_120_the_same_key_is_the_same_signal(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        return [await ctx.wait_for_signal("go") for _ in range(2)]

    async with place.open() as sw:
        run = await sw.start(flow)
        await asyncio.gather(*(run.signal("go", 1, key="k") for _ in range(5)))
        await refused(run.signal("go", 2, key="k"), Conflict, "k")
        await run.signal("go", 2, key="l")
        assert await run.result() == [1, 2]
        await run.signal("go", 1, key="k")  # also when the run has ended

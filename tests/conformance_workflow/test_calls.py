"""71, 86 to 90, 109, 110: values, mutations, delays, sleeps, versions (source: spec orchestrator E.5, B.7, B.17)."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    App,
    Context,
    Event,
    Invalid,
    MutationContext,
    Pool,
    QueryContext,
    Retry,
    RunError,
    State,
    StepError,
)
from tests.conformance_workflow.support import (
    Place,
    entries,
    new_app,
    notes,
    on_a_loop,
    refused,
    resting,
    seen,
    story,
)


@on_a_loop
@pytest.mark.parametrize(
    "option",
    [
        {"pool": "gpu"},
        {"key": 5},
        {"priority": "hi"},
        {"timeout": -1},
        {"delay": "1"},
        {"id": 5},
        {"tags": {"a": 1}},
        {"tags": ["a"]},
    ],
)
async def test_87_an_option_that_cannot_be_is_refused_and_not_dropped(place: Place, option: dict[str, Any]) -> None:
    @place.app.action
    async def act() -> None: ...

    @place.app.workflow
    async def child(ctx: Context) -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        if option.keys() & {"id", "tags"}:
            await ctx.options(**option).call(child)
        else:
            await ctx.options(**option).call(act)

    async with place.open() as sw:
        error = await refused((await sw.start(flow)).result(), RunError)
        assert error.type == "Invalid"


@on_a_loop
async def test_87_an_option_that_a_call_does_not_have_is_refused_and_not_dropped(place: Place) -> None:
    retry = Retry(2)

    @place.app.mutation
    def change(ctx: MutationContext) -> None: ...

    @place.app.query
    def look(ctx: QueryContext) -> None: ...

    @place.app.action
    async def act() -> None: ...

    def step() -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> list[str]:
        said = list[str]()
        for call in (
            lambda: ctx.options(retry=retry).call(change),
            lambda: ctx.options(timeout=5, name="n").call(change),
            lambda: ctx.options(priority=3).call(look),
            lambda: ctx.options(id="mine").call(act),
            lambda: ctx.options(pool=Pool("p", 3)).step(step),
            lambda: ctx.options(heartbeat=3).step("s", step),
            lambda: ctx.options(delay=3).dispatch(Event("t", {})),
        ):
            try:
                await call()
            except Invalid as error:
                said.append(f"{error.message}: {error.hint[:20]}")
        await ctx.options(retry=False, name="n").call(change)
        return said

    async with place.open() as sw:
        assert await (await sw.start(flow)).result() == [
            "a mutation has no option retry: One that fails has c",
            "a mutation has no option timeout: `mutation_limit_ms` ",
            "a query has no option priority: Its options are at, ",
            "an action has no option id: Its options are at, ",
            "a step has no option pool: What runs here waits",
            "a step has no option heartbeat: Only an action has a",
            "a dispatch has no option delay: Its options are name",
        ]


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Order:
    id: str
    lines: list[int]


@on_a_loop
async def test_71_values_are_typed_and_what_cannot_be_recorded_is_not_done(place: Place) -> None:
    ran = 0

    async def priced(order: Order) -> Order:
        return Order(order.id, [2 * line for line in order.lines])

    async def opaque() -> Any:
        nonlocal ran
        ran += 1
        return {"file": object()}

    @place.app.workflow
    async def typed(ctx: Context, order: Order) -> Order:
        found = await ctx.step(priced, order)
        assert isinstance(found, Order)
        await ctx.sleep(0.01)
        return found

    @place.app.workflow
    async def unserialisable(ctx: Context) -> None:
        await ctx.options(retry=Retry(3, initial=0)).step(opaque)

    async with place.open() as sw:
        assert await (await sw.start(typed, Order("1", [1, 2]))).result() == Order("1", [2, 4])
        run = await sw.start(unserialisable)
        error = await refused(run.result(), RunError, "object", "$.file")
        assert error.type == "NotJson"
        assert await story(run) == ["run.created", "step.failed", "run.failed"]
    assert ran == 1, "another attempt would return it, too"


# ── mutations and queries ────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_86_a_mutation_is_one_transaction_with_its_entry_and_runs_once(place: Place) -> None:
    note, noted = notes(place.app)

    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        told: list[Any] = [await ctx.call(note, "one")]
        try:
            await ctx.call(note, "bad")
        except StepError as error:
            told.append(error.message)
        told.append(await ctx.call(noted))
        await ctx.wait_for_signal("go")
        await ctx.options(delay=0.01).call(note, "two")
        return [*told, await ctx.call(noted)]

    async with place.open() as sw:
        run = await sw.start(flow)
        await seen(run, "step.completed", 2)
        await run.signal("go")
        assert await run.result() == [3, "bad is no note", ["one"], ["one", "two"]]
        assert await story(run) == [
            "run.created",
            *("step.completed", "step.failed", "step.completed"),
            *("signal.received", "timer.fired", "step.completed", "step.completed", "run.completed"),
        ]
        assert await sw.call(noted) == ["one", "two"]


@on_a_loop
async def test_87_a_mutation_has_a_time_limit_and_leaves_nothing(place: Place) -> None:
    note, noted = notes(place.app)

    @place.app.mutation
    def slow(ctx: MutationContext) -> None:
        ctx.call(note, "half")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            pass

    @place.app.workflow
    async def flow(ctx: Context) -> str:
        try:
            await ctx.call(slow)
        except StepError as error:
            return error.type
        return "it took all the time of the world"

    place.set(mutation_limit_ms=50)
    async with place.open() as sw:
        assert await (await sw.start(flow)).result() == "Timeout"
        assert await sw.call(noted) == []


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
@pytest.mark.parametrize("how", ["delay", "at"])
@pytest.mark.parametrize("what", ["step", "action", "mutation", "query", "child"])
async def test_88_whatever_is_called_can_be_delayed(disk: Place, what: str, how: str) -> None:
    note, noted = notes(disk.app)

    @disk.app.action
    async def act() -> None: ...

    @disk.app.workflow
    async def child(ctx: Context) -> None: ...

    async def step() -> None: ...

    @disk.app.workflow
    async def flow(ctx: Context) -> None:
        later = ctx.options(delay=3_600) if how == "delay" else ctx.options(at=ctx.now() + timedelta(hours=1))
        calls: dict[str, Any] = {"action": (act,), "mutation": (note, "x"), "query": (noted,), "child": (child,)}
        await (later.step(step) if what == "step" else later.call(*calls[what]))

    async with disk.open() as sw:
        run = await sw.start(flow)
        await resting(run)
        before = await story(run)
        assert not [kind for kind in before if kind.startswith(("step.", "action.completed", "child.ended"))]
        disk.time.forward(3_500)
        await asyncio.sleep(0.1)
        assert await story(run) == before
        disk.time.forward(101)
        await run.result()


@on_a_loop
async def test_88_delay_and_at_exclude_each_other(place: Place) -> None:
    @place.app.action
    async def act() -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        await ctx.options(delay=1, at=ctx.now()).call(act)

    async with place.open() as sw:
        await refused((await sw.start(flow)).result(), RunError, "delay or at, not both")


@on_a_loop
async def test_89_a_sleep_of_30_days_has_its_name_and_outlives_its_process(disk: Place) -> None:
    @disk.app.workflow
    async def flow(ctx: Context) -> float:
        began = ctx.now()
        await ctx.sleep(timedelta(days=30), name="trial")
        return (ctx.now() - began).total_seconds()

    async with disk.open() as sw:
        run = await sw.start(flow)
        view = await resting(run)
        assert (view.status, view.waiting_for) == ("sleeping", "timer:trial#0")
    disk.time.forward(29.99 * 86_400)
    async with disk.open() as sw:
        await asyncio.sleep(0.1)
        assert (await sw.handle(run.id).status()).status == "sleeping"
        disk.time.forward(0.01 * 86_400)
        assert abs(await sw.handle(run.id).result() - 30 * 86_400) < 5
        (timer,) = await entries(sw.handle(run.id), "timer.fired")
        assert timer.key == "trial#0"


@on_a_loop
async def test_90_a_sleep_of_nothing_returns_at_once(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> bool:
        began = ctx.now()
        for seconds in (0, -5, 0.0):
            await ctx.sleep(seconds)
        await ctx.sleep_until(began)
        return ctx.now() == began

    async with place.open() as sw:
        run = await sw.start(flow)
        assert await run.result() is True
        assert await story(run) == ["run.created", "run.completed"]


# ── code of a run ────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_109_a_run_keeps_the_version_that_it_began_with(disk: Place) -> None:
    def code(*versions: str) -> tuple[App, dict[str, Any]]:
        app, found = new_app(), {}
        for version in versions:

            @app.workflow(name="t:flow", version=version)
            async def flow(ctx: Context, mine: str = version) -> list[str]:
                await ctx.wait_for_signal("go")
                return [ctx.version, mine]

            found[version] = flow
        return app, found

    app, flows = code("1")
    async with disk.open(app) as sw:
        old = await sw.start(flows["1"])
        await resting(old)
    app, flows = code("1", "2")
    async with disk.open(app) as sw:
        new = await sw.start(flows["2"])
        for run in (old, new):
            await sw.handle(run.id).signal("go")
        assert [(await sw.handle(run.id).status()).version for run in (old, new)] == ["1", "2"]
        assert await sw.handle(old.id).result() == ["1", "1"]
        assert await new.result() == ["2", "2"]


@on_a_loop
async def test_110_a_closure_is_a_step(place: Place) -> None:
    ran: list[int] = []
    progress = State("progress", int)

    @place.app.workflow
    async def flow(ctx: Context) -> int:
        total = 0

        async def add(n: int) -> int:
            ran.append(n)
            return total + n

        for n in range(3):
            total = await ctx.step("add", add, n)
            await ctx.set(progress, total)
        await ctx.wait_for_signal("go")
        return await ctx.step(lambda: total * 2)

    async with place.open() as sw:
        run = await sw.start(flow)
        await seen(run, "state.set", 3)
        assert await run.get(progress) == 3
        await run.signal("go")
        assert await run.result() == 6
    assert ran == [0, 1, 2]

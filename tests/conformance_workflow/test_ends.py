"""94 to 107: cancel, replace, callbacks, children, lists, bounds (source: spec orchestrator E.5, B.11 to B.14)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from stepwell import (
    App,
    Completion,
    Conflict,
    Context,
    Handle,
    Invalid,
    MutationContext,
    NotFound,
    Retry,
    RunCanceled,
    RunError,
    State,
    StepError,
    Stepwell,
    StepwellError,
    TooLarge,
)
from stepwell.worker.why import why_of
from tests.conformance_workflow.support import Place, entries, notes, on_a_loop, refused, resting, seen, story


def telling(app: App) -> Any:
    """A callback that notes what it is told."""

    @app.mutation
    def told(ctx: MutationContext, completion: Completion) -> None:
        error = completion.error and completion.error.message
        said = f"{completion.kind} {completion.value} {error} {str(completion.context)[:20]}"
        ctx.db.execute("insert into note (text) values (?)", said)
        if completion.context == "bad":
            raise ValueError("a bad callback")

    return told


async def ids(sw: Stepwell, name: str) -> list[str]:
    return [run.id async for run in sw.runs(name=name)]


# ── cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_94_a_cancel_reaches_actions_and_children_discards_results_and_is_told_once(place: Place) -> None:
    app, ran = place.app, list[str]()
    _, noted = notes(app)
    told, begun, stopped = telling(app), asyncio.Event(), asyncio.Event()

    @app.action
    async def slow() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return "never"

    async def never() -> None:
        ran.append("a step that was to come")

    @app.workflow
    async def grandchild(ctx: Context) -> None:
        await ctx.sleep(3_600)

    @app.workflow
    async def child(ctx: Context) -> None:
        await ctx.call(grandchild)
        await ctx.step(never)

    @app.workflow
    async def flow(ctx: Context) -> None:
        await asyncio.gather(ctx.call(slow), ctx.call(child))
        await ctx.step(never)

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        run = await sw.options(on_complete=told, context={"n": 1}).start(flow)
        await seen(run, "child.started")
        await begun.wait()
        (child_id,) = await ids(sw, "t:child")
        await seen(sw.handle(child_id), "child.started")
        (grandchild_id,) = await ids(sw, "t:grandchild")
        await run.cancel("enough")
        for one in (run, sw.handle(child_id), sw.handle(grandchild_id)):
            await refused(one.result(), RunCanceled)
        await stopped.wait()
        assert not await entries(run, "action.completed")
        assert (await entries(run))[-1].kind == "run.canceled"
        assert await sw.call(noted) == ["canceled None enough {'n': 1}"]
    assert ran == []


@on_a_loop
async def test_94_a_canceled_body_may_clean_up_once_and_not_for_ever(place: Place) -> None:
    ran: list[str] = []
    cleaned = State("cleaned", bool)

    async def undo() -> None:
        ran.append("undo")

    @place.app.workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.sleep(3_600)
        finally:
            await ctx.step(undo)
            await ctx.set(cleaned, True)

    @place.app.workflow
    async def stubborn(ctx: Context) -> None:
        try:
            await ctx.sleep(3_600)
        except asyncio.CancelledError:
            await ctx.wait_for_signal("never")

    place.set(cancel_grace_ms=100)
    async with place.open() as sw:
        for workflow in (tidy, stubborn):
            run = await sw.start(workflow)
            await seen(run, "attempt.started") if place.stays else await resting(run)
            await run.cancel("first")
            await run.cancel("second")
            says = "first" if workflow is tidy else "past the grace of its cancel"
            await refused(run.result(), RunCanceled, says)
            assert len(await entries(run, "cancel.requested")) == 1
        assert await sw.handle((await ids(sw, "t:tidy"))[0]).get(cleaned) is True
    assert ran == ["undo"]


@on_a_loop
async def test_95_an_action_that_the_body_gives_up_is_canceled_and_told(place: Place) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    @place.app.action
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    @place.app.workflow
    async def flow(ctx: Context) -> str:
        calling = asyncio.create_task(ctx.call(slow))
        await ctx.wait_for_signal("enough")
        calling.cancel()
        try:
            await calling
        except asyncio.CancelledError:
            return "gave up"
        return "?"

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        run = await sw.start(flow)
        await begun.wait()
        await run.signal("enough")
        assert await run.result() == "gave up"
        await stopped.wait()
        kinds = [kind for kind in await story(run) if kind.startswith("action")]
        assert kinds in (["action.scheduled", "action.canceled"], ["action.scheduled"])


@on_a_loop
async def test_96_what_has_ended_cannot_be_canceled(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None: ...

    async with place.open() as sw:
        run = await sw.start(flow)
        await run.result()
        for late in (run.cancel(), run.terminate()):
            await refused(late, Conflict, "completed")
        await refused(sw.handle("nobody").cancel(), NotFound, "nobody")


@on_a_loop
async def test_97_a_replaced_run_is_another_generation_that_hears_nothing_of_the_old_one(place: Place) -> None:
    gate = [asyncio.Event(), asyncio.Event()]
    tries = 0

    @place.app.action
    async def slow() -> int:
        nonlocal tries
        tries += 1
        mine = tries
        try:
            await gate[mine - 1].wait()
        except asyncio.CancelledError:
            return -mine
        return mine

    @place.app.workflow
    async def flow(ctx: Context) -> int:
        return await ctx.call(slow)

    place.set(heartbeat_ms=50)
    async with place.open() as sw:
        mine = sw.options(id="mine")
        run = await mine.start(flow)
        await seen(run, "action.scheduled")
        await refused(mine.options(if_exists="raise").start(flow), Conflict, "mine")
        again = await mine.options(if_exists="replace").start(flow)
        assert (again.id, (await again.status()).generation) == ("mine", 2)
        gate[0].set()
        gate[1].set()
        await again.result()
        ended = await entries(run, "action.completed")
        scheduled = await entries(run, "action.scheduled")
        assert [one.body["task"] for one in ended] == [scheduled[-1].seq]


# ── callbacks and children ───────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_102_each_end_is_told_once_with_its_context_and_a_bad_callback_changes_no_end(place: Place) -> None:
    _, noted = notes(place.app)
    told = telling(place.app)
    large = "c" * 500_000

    @place.app.workflow
    async def flow(ctx: Context, how: str) -> str:
        if how == "fails":
            raise ValueError("no")
        if how == "waits":
            await ctx.sleep(3_600)
        return how

    async with place.open() as sw:
        good = await sw.options(on_complete=told, context=large).start(flow, "works")
        assert await good.result() == "works"
        bad = await sw.options(on_complete=told, context=[1]).start(flow, "fails")
        await refused(bad.result(), RunError, "no")
        killed = await sw.options(on_complete=told).start(flow, "waits")
        await killed.terminate("now")
        worse = await sw.options(on_complete=told, context="bad").start(flow, "works")
        assert await worse.result() == "works"
        (end,) = await entries(worse, "run.completed")
        assert end.body["callback_error"]["message"] == "a bad callback"
        engine = sw._connection.engine
        (said,) = await engine.read(
            lambda it: [why_of(it, run, engine) for run in it.scan_runs() if run.id == worse.id]
        )
        assert said == "ended: completed; its on_complete failed: a bad callback"
        assert await sw.call(noted) == [
            "canceled None now None",
            "failed None no [1]",
            f"success works None {'c' * 20}",
        ]


@on_a_loop
async def test_103_the_end_of_a_child_is_its_parents_to_see(place: Place) -> None:
    @place.app.workflow
    async def child(ctx: Context, how: str) -> str:
        if how == "fails":
            raise ValueError("a bad child")
        if how == "is canceled":
            await ctx.sleep(3_600)
        return how

    @place.app.workflow
    async def flow(ctx: Context) -> list[str]:
        said = [await ctx.call(child, "works")]
        try:
            await ctx.call(child, "fails")
        except RunError as error:
            said.append(f"{error.type}: {error.message}, {'in child' in error.traceback}")
        handle = await ctx.options(id="mine").start(child, "is canceled")
        try:
            await handle.result()
        except RunCanceled:
            said.append(handle.id)
        return said

    async with place.open() as sw:
        run = await sw.start(flow)
        started = await seen(run, "child.started", 3)
        assert started[-1].body["child"] == "mine"
        await sw.handle("mine").cancel()
        assert await run.result() == ["works", "ValueError: a bad child, True", "mine"]
        ends = [one.body["status"] for one in await entries(run, "child.ended")]
        assert ends == ["completed", "failed", "canceled"]


@on_a_loop
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_complete": None, "context": 1}, "context"),
        ({"if_exists": "replace"}, "if_exists"),
        ({"scope": "other"}, "scope"),
        ({"retry": Retry(2)}, "retry"),
        ({"timeout": 5}, "timeout"),
        ({"returns": int}, "returns"),
    ],
)
async def test_103_an_option_that_a_child_does_not_have_is_refused(
    place: Place, options: dict[str, Any], says: str
) -> None:
    @place.app.workflow
    async def child(ctx: Context) -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        await ctx.options(**options).call(child)

    async with place.open() as sw:
        error = await refused((await sw.start(flow)).result(), RunError, says)
        assert error.type == "Invalid"


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_104_pages_are_of_a_hundred_newest_first_and_stand_while_runs_come(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None: ...

    @place.app.workflow
    async def other(ctx: Context) -> None: ...

    async with place.open(worker=False) as sw:
        started = [(await sw.start(flow)).id for _ in range(150)]
        await sw.options(tags={"a": "b"}).start(other)
        listed = sw.runs(name="t:flow")
        first, cursor = await listed.page()
        await asyncio.gather(*(sw.start(flow) for _ in range(20)))
        rest, over = await listed.page(cursor)
        assert [run.id for run in first + rest] == started[::-1]
        assert (len(first), over) == (100, None)
        assert len([run async for run in sw.runs(status="queued")]) == 171
        assert [run.name async for run in sw.runs(tags={"a": "b"})] == ["t:other"]


@on_a_loop
async def test_105_a_run_that_is_watched_is_told_at_each_change(place: Place) -> None:
    phase = State("phase", int)

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        for n in range(3):
            await ctx.set(phase, n)
            await ctx.wait_for_signal("go")

    async with place.open() as sw:
        run, phases = await sw.start(flow), list[Any]()
        async for _ in run.watch():
            now = await run.get(phase)
            if now is not None and now not in phases:
                phases.append(now)
                await run.signal("go")
        assert phases == [0, 1, 2]


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_106_what_is_too_large_fails_its_own_call_and_can_be_caught(place: Place) -> None:
    app = place.app
    note, _ = notes(app)
    big = State("big", str)

    @app.action
    async def echo(text: str, times: int = 1) -> str:
        return text * times

    @app.workflow
    async def child(ctx: Context, text: str, times: int = 1) -> str:
        return text * times

    @app.mutation
    def large(ctx: MutationContext) -> str:
        return "x" * 20_000

    @app.workflow
    async def flow(ctx: Context) -> list[str]:
        said, text = [], "x" * 20_000
        for what in range(8):
            try:
                match what:
                    case 0:
                        await ctx.step(lambda: text)
                    case 1:
                        await ctx.call(echo, "x", 20_000)
                    case 2:
                        await ctx.call(echo, text)
                    case 3:
                        await ctx.call(note, text)
                    case 4:
                        await ctx.call(large)
                    case 5:
                        await ctx.call(child, text)
                    case 6:
                        await ctx.call(child, "x", 20_000)
                    case 7:
                        await ctx.set(big, text)
            except (StepError, RunError) as error:
                said.append(error.type if "the limit is 10,000" in error.message else error.message)
        return said

    place.set(payload_bytes=10_000)
    async with place.open() as sw:
        run = await sw.start(flow)
        assert await run.result() == ["TooLarge"] * 8
        error = await refused(sw.start(child, "x" * 20_000), TooLarge, "10,000")
        assert error.fields["limit"] == 10_000
        assert len(await ids(sw, "t:child")) == 1, "those that were too large have no row"


async def _flood(run: Handle[Any]) -> AsyncIterator[StepwellError]:
    for _ in range(200):
        try:
            await run.signal("go")
        except (TooLarge, Conflict) as refusal:
            yield refusal


@on_a_loop
@pytest.mark.parametrize("how", ["steps", "signals", "parallel", "children"])
async def test_106_a_journal_at_its_bound_fails_the_run_and_is_never_stuck(place: Place, how: str) -> None:
    async def one() -> int:
        return 1

    @place.app.workflow
    async def child(ctx: Context) -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        if how == "parallel":
            await asyncio.gather(*(ctx.step(one) for _ in range(300)))
        while True:
            if how == "steps":
                await ctx.step(one)
            elif how == "children":
                await ctx.call(child)
            else:
                await ctx.wait_for_signal("go")

    place.set(journal_entries=100)
    async with place.open() as sw:
        run = await sw.start(flow)
        if how == "signals":
            refusals = [_ async for _ in _flood(run)]
            assert refusals, "the sender is told"
            with suppress(Conflict):
                await run.cancel()
            await refused(run.result(), RunError)
        else:
            error = await refused(run.result(), RunError, "100")
            assert error.type == "TooLarge"
        assert len(await entries(run)) <= 102


def test_87_options_that_are_not_there_are_refused_at_the_call() -> None:
    options: Any = Stepwell("memory:").options
    with pytest.raises(Invalid, match="transaction_limits"):
        options(transaction_limits=1)

"""91 to 93: retries, what is never retried, what is told of each attempt (source: spec orchestrator E.5, B.15, C.2)."""

import asyncio
from typing import Any

import pytest

from stepwell import (
    ActionContext,
    App,
    Context,
    MutationContext,
    NonRetryable,
    Retry,
    RunError,
    StepError,
    StepTimeout,
)
from stepwell.functions.define import Workflow
from tests.conformance_workflow.support import Place, entries, new_app, on_a_loop, refused

TWICE, THRICE, FOUR = (Retry(n, initial=0.001) for n in (2, 3, 4))


def failing(app: App, tried: list[str], decorated: Any, default: Any, call: Any) -> Workflow[Any, Any]:
    """A workflow that calls an action and a step that always fail, with what is said about retries in three places."""

    async def acts() -> None:
        tried.append("action")
        raise OSError("again")

    act = app.action(acts) if decorated is None else app.action(retry=decorated)(acts)

    async def step() -> None:
        tried.append("step")
        raise OSError("again")

    @app.workflow
    async def flow(ctx: Context) -> list[int]:
        for retry in (default, call):
            ctx = ctx if retry is None else ctx.options(retry=retry)
        attempts = []
        for what in ("action", "step"):
            try:
                await (ctx.call(act) if what == "action" else ctx.step(step))
            except StepError as error:
                attempts.append(error.attempts)
        return attempts

    return flow


@on_a_loop
@pytest.mark.parametrize(
    ("of_app", "decorated", "default", "call", "action", "step"),
    [
        (None, None, None, None, 1, 1),
        (TWICE, None, None, None, 2, 1),  # the app's policy is that of actions that say nothing
        (TWICE, False, None, None, 1, 1),
        (TWICE, True, None, None, 2, 1),
        (TWICE, THRICE, None, None, 3, 1),
        (None, True, None, None, 3, 1),  # without a policy of the app, the default one
        (None, None, True, None, 3, 3),
        (FOUR, None, True, None, 4, 4),
        (FOUR, THRICE, TWICE, None, 2, 2),  # the nearest says it
        (FOUR, THRICE, TWICE, False, 1, 1),
        (FOUR, THRICE, False, True, 4, 4),
        (FOUR, False, None, THRICE, 3, 3),
    ],
)
async def test_91_the_nearest_policy_counts(
    place: Place, of_app: Any, decorated: Any, default: Any, call: Any, action: int, step: int
) -> None:
    tried: list[str] = []
    app = new_app(of_app)
    flow = failing(app, tried, decorated, default, call)
    async with place.open(app) as sw:
        assert await (await sw.start(flow)).result() == [action, step]
    assert (tried.count("action"), tried.count("step")) == (action, step)


@on_a_loop
@pytest.mark.parametrize(("retry", "attempts"), [(None, 2), (True, 2), (False, 1), (THRICE, 3)])
async def test_91_a_call_from_outside_follows_the_same_policies(place: Place, retry: Any, attempts: int) -> None:
    ran = 0
    app = new_app(TWICE)

    async def acts() -> None:
        nonlocal ran
        ran += 1
        raise OSError("again")

    act = app.action(acts) if retry is None else app.action(retry=retry)(acts)

    async with place.open(app) as sw:
        await refused(sw.call(act), StepError, "again")
    assert ran == attempts


@on_a_loop
async def test_91_true_without_a_policy_of_the_app_is_the_default_from_outside_too(place: Place) -> None:
    ran = 0

    @place.app.action(retry=True)
    async def act() -> int:
        nonlocal ran
        ran += 1
        if ran < 3:
            raise OSError("again")
        return ran

    async with place.open() as sw:
        assert await sw.call(act) == 3


@on_a_loop
@pytest.mark.parametrize("where", ["action", "step", "outside", "enqueued"])
@pytest.mark.parametrize(
    ("retry", "attempts"),
    [
        (Retry(3, initial=0, never=(LookupError,)), 1),
        (Retry(3, initial=0, never=(OSError,)), 3),
        (Retry(3, initial=0, only=(LookupError,)), 3),
        (Retry(3, initial=0, only=(OSError,)), 1),
    ],
)
async def test_91_a_policy_chooses_its_exceptions_wherever_it_is_given(
    place: Place, where: str, retry: Retry, attempts: int
) -> None:
    ran = 0
    of_code = Retry(9) if where == "action" else retry  # a call's own policy counts, all of it

    @place.app.action(retry=of_code)
    async def act() -> None:
        nonlocal ran
        ran += 1
        raise KeyError("a subclass")

    @place.app.mutation
    def enqueues(ctx: MutationContext) -> str:
        return ctx.enqueue(act)

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        ctx = ctx.options(retry=retry)
        await (ctx.call(act) if where == "action" else ctx.step(act.fn))

    async with place.open() as sw:
        if where == "outside":
            await refused(sw.call(act), StepError)
        elif where == "enqueued":
            await refused(sw.handle(await sw.call(enqueues)).result(), RunError)
        else:
            await refused((await sw.start(flow)).result(), RunError)
    assert ran == attempts


@on_a_loop
async def test_91_an_action_that_a_mutation_enqueues_has_the_apps_policy(place: Place) -> None:
    ran = 0
    app = new_app(THRICE)

    @app.action
    async def act() -> None:
        nonlocal ran
        ran += 1
        raise OSError("again")

    @app.mutation
    def enqueues(ctx: MutationContext) -> str:
        return ctx.enqueue(act)

    async with place.open(app) as sw:
        await refused(sw.handle(await sw.call(enqueues)).result(), RunError, "again")
    assert ran == 3


@on_a_loop
async def test_91_what_is_no_policy_is_refused_at_the_call(place: Place) -> None:
    @place.app.action
    async def act() -> None: ...

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        wrong: Any = 3
        await ctx.options(retry=wrong).call(act)

    async with place.open() as sw:
        error = await refused((await sw.start(flow)).result(), RunError, "retry must be")
        assert error.type == "Invalid"


class NoFunds(NonRetryable):
    """A subclass of a user's own."""


class NeverFunds(NoFunds):
    """And one of that."""


@on_a_loop
@pytest.mark.parametrize("kind", [NonRetryable, NoFunds, NeverFunds])
@pytest.mark.parametrize("grouped", [False, True])
async def test_92_what_says_so_is_never_tried_again(place: Place, kind: type[NonRetryable], grouped: bool) -> None:
    tried: list[str] = []

    def refuse(where: str) -> None:
        tried.append(where)
        error = kind("no money", data={"balance": 0})
        raise ExceptionGroup("several", [OSError("x"), error]) if grouped else error

    @place.app.action
    async def act() -> None:
        refuse("action")

    async def step() -> None:
        refuse("step")

    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        ctx = ctx.options(retry=Retry(5, initial=0))
        told = []
        for what in ("action", "step"):
            try:
                await (ctx.call(act) if what == "action" else ctx.step(step))
            except StepError as error:
                told.append([error.type, "no money" in error.message, error.data, error.attempts])
        return told

    async with place.open() as sw:
        data = None if grouped else {"balance": 0}
        name = "ExceptionGroup" if grouped else kind.__name__
        assert await (await sw.start(flow)).result() == [[name, True, data, 1]] * 2
    assert tried == ["action", "step"]


@on_a_loop
async def test_93_each_attempt_is_in_the_journal_with_its_error(place: Place) -> None:
    @place.app.action(retry=THRICE)
    async def act(ctx: ActionContext) -> None:
        raise OSError(f"try {ctx.attempt} of an action")

    ran = 0

    async def step() -> None:
        nonlocal ran
        ran += 1
        raise OSError(f"try {ran} of a step")

    @place.app.workflow
    async def flow(ctx: Context) -> list[int]:
        attempts = []
        for what in ("action", "step"):
            try:
                await (ctx.call(act) if what == "action" else ctx.options(retry=THRICE).step(step))
            except StepError as error:
                attempts.append(error.attempts)
        return attempts

    async with place.open() as sw:
        run = await sw.start(flow)
        assert await run.result() == [3, 3]
        ends = [one.body for one in await entries(run, "attempt.ended") if one.body["task_kind"] == "action"]
        assert [one["error"]["message"] for one in ends] == ["try 1 of an action", "try 2 of an action"]
        (failed,) = await entries(run, "action.failed")
        assert (failed.body["error"]["message"], failed.body["error"]["attempts"]) == ("try 3 of an action", 3)
        again = [one.body for one in await entries(run, "step.retried")]
        assert [(one["attempt"], one["error"]["message"]) for one in again] == [
            (1, "try 1 of a step"),
            (2, "try 2 of a step"),
        ]
        (failed,) = await entries(run, "step.failed")
        assert (failed.body["attempts"], failed.body["error"]["message"]) == (3, "try 3 of a step")


@on_a_loop
@pytest.mark.parametrize("kind", ["action", "step"])
async def test_93_a_timeout_is_of_one_attempt_and_a_deadline_of_all(place: Place, kind: str) -> None:
    @place.app.action
    async def hangs() -> None:
        await asyncio.sleep(60)

    fn: Any = hangs if kind == "action" else hangs.fn

    @place.app.workflow
    async def flow(ctx: Context) -> list[Any]:
        told: list[Any] = []
        ctx = ctx.options(retry=Retry(2, initial=0), timeout=0.05)
        for options in (ctx, ctx.options(deadline=0.08, retry=Retry(1_000, initial=0))):
            began = ctx.now()
            try:
                await (options.call(fn) if kind == "action" else options.step(fn))
            except StepTimeout as error:
                told += [error.attempts, (ctx.now() - began).total_seconds()]
        return told

    async with place.open() as sw:
        first, _, last, took = await (await sw.start(flow)).result()
    assert first == 2
    assert last <= 3
    assert took < 2


@on_a_loop
async def test_93_an_action_keeps_its_own_timeout_whoever_calls_it(place: Place) -> None:
    @place.app.action(timeout=0.05)
    async def hangs() -> None:
        await asyncio.sleep(60)

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        await ctx.call(hangs)

    async with place.open() as sw:
        error = await refused((await sw.start(flow)).result(), RunError, "0.05")
        assert error.type == "StepTimeout"
        await refused(sw.call(hangs), StepTimeout, "0.05")

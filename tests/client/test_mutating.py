"""What mutations send and start, called from outside and from a workflow: all of it commits with them, or nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Conflict, Context, Event, MutationContext, NotFound, Signal, StepError, Stepwell
from stepwell.model.settings import Settings
from tests.support import assert_lawful, durable, durable_url
from tests.support.stores import CHOICE

SETTINGS = Settings(sync="normal", poll_ms=200)
approval = Signal("approval", bool)
app = App("mutating")
Test = Callable[[Stepwell], Awaitable[None]]


@app.workflow(on="order.paid")
async def paid(ctx: Context, event: Event[dict[str, Any]]) -> str:
    return event.id


@app.workflow
async def quick(ctx: Context, n: int = 0) -> int:
    return n


@app.workflow
async def waits(ctx: Context) -> bool:
    return await ctx.wait_for_signal(approval)


@app.mutation
def send(ctx: MutationContext, event_id: str, total: int = 1) -> tuple[bool, list[str]]:
    sent = ctx.dispatch(Event("order.paid", {"total": total}, id=event_id))
    return sent.duplicate, sent.run_ids


@app.mutation
def send_and_fail(ctx: MutationContext, event_id: str, run_id: str) -> None:
    ctx.call(send, event_id)
    ctx.options(id=run_id).start(quick)
    raise ValueError("too late")


@app.mutation
def catches(ctx: MutationContext, event_id: str) -> str:
    try:
        ctx.call(send_and_fail, event_id, "inner")
    except ValueError as error:
        ctx.options(id="outer").start(quick, 7)
        return str(error)
    return ""


@app.mutation
def sends_another_body(ctx: MutationContext, event_id: str) -> list[str]:
    ctx.dispatch(Event("order.paid", {"total": 1}, id=event_id))
    with pytest.raises(Conflict):
        ctx.dispatch(Event("order.paid", {"total": 2}, id=event_id))
    return ctx.dispatch(Event("order.paid", {"total": 1}, id=event_id)).run_ids


@app.mutation
def sends_many(ctx: MutationContext, n: int) -> list[str]:
    return [run for at in range(n) for run in ctx.dispatch(Event("order.paid", {"at": at})).run_ids]


@app.mutation
def signals(ctx: MutationContext, run_id: str, value: Any) -> None:
    ctx.signal(run_id, approval, value)


@app.mutation
def starts_with(ctx: MutationContext, what: str) -> str:
    wrong: dict[str, Any] = {
        "idd": {"idd": "x"},
        "detached": {"detached": True},
        "at": {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the mistake
        "pool": {"pool": "gpu"},
        "tags": {"tags": 3},
        "scope": {"scope": "other"},
    }
    return ctx.options(**wrong[what]).start(quick)


@app.mutation
def sends_wrong(ctx: MutationContext, what: str) -> None:
    any_event: Any = Event
    events: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "id": lambda: Event("order.paid", {}, id="x" * 300),
        "payload": lambda: Event("order.paid", object()),
        "source": lambda: Event("order.paid", {}, source="\ud800"),
        "time": lambda: any_event("order.paid", {}, occurred_at="noon"),
    }
    ctx.dispatch(events[what]())


@app.workflow
async def sending(ctx: Context, event_id: str) -> tuple[bool, list[str]]:
    return await ctx.call(send, event_id)


@app.workflow
async def failing(ctx: Context, event_id: str) -> str:
    try:
        await ctx.call(send_and_fail, event_id, "never")
    except StepError as error:
        return error.type
    return ""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def within(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Test], None]:
    """Runs a test in an open Stepwell; the laws hold at its end."""
    file = tmp_path / "app.db"
    monkeypatch.setenv(CHOICE, request.param)
    url = "memory:" if request.param == "memory" else durable_url(file)

    def run(test: Test) -> None:
        async def main() -> None:
            async with Stepwell(url, app, settings=SETTINGS) as sw:
                await asyncio.wait_for(test(sw), 20)

        asyncio.run(main())
        if url != "memory:":
            assert_lawful(durable(file), SETTINGS)

    return run


async def missing(sw: Stepwell, *run_ids: str) -> None:
    for run_id in run_ids:
        with pytest.raises(NotFound):
            await sw.handle(run_id).status()


async def failed(call: Awaitable[Any], kind: str, text: str | None = None) -> None:
    with pytest.raises(StepError, match=text) as caught:
        await call
    assert caught.value.type == kind


def test_an_event_of_a_mutation_starts_what_it_matches_once(within: Callable[[Test], None]) -> None:
    async def test(sw: Stepwell) -> None:
        duplicate, (run_id,) = await sw.call(send, "e1")
        assert not duplicate
        assert await sw.handle(run_id, paid).result(timeout=5) == "e1"
        assert await sw.call(send, "e1") == (True, [run_id])
        assert await (await sw.start(sending, "e1")).result(timeout=5) == (True, [run_id])
        again, (other,) = await (await sw.start(sending, "e2")).result(timeout=5)
        assert (again, await sw.handle(other).result(timeout=5)) == (False, "e2")
        await failed(sw.call(send, "e1", 2), "Conflict")
        assert await sw.call(sends_another_body, "e3") == [run.id async for run in sw.runs(event_id="e3")]
        assert len(set(await sw.call(sends_many, 20))) == 20
        assert (await sw.dispatch(Event("order.paid", {"total": 1}, id="e1"))).run_ids == [run_id]

    within(test)


def test_what_fails_later_has_sent_and_started_nothing(within: Callable[[Test], None]) -> None:
    async def test(sw: Stepwell) -> None:
        await failed(sw.call(send_and_fail, "e1", "never"), "ValueError", "too late")
        assert await (await sw.start(failing, "e1")).result(timeout=5) == "ValueError"
        assert await sw.call(catches, "e1") == "too late"
        await missing(sw, "never", "inner")
        assert [run.id async for run in sw.runs(event_id="e1")] == []
        assert await sw.handle("outer").result(timeout=5) == 7
        duplicate, runs = await sw.call(send, "e1")
        assert (duplicate, len(runs)) == (False, 1)

    within(test)


def test_a_signal_of_a_mutation_is_of_its_type(within: Callable[[Test], None]) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(waits)
        await failed(sw.call(signals, run.id, "perhaps"), "NotJson", "expected bool")
        await sw.call(signals, run.id, value=True)
        assert await run.result(timeout=5) is True
        await failed(sw.call(signals, run.id, value=True), "Ended")
        await failed(sw.call(signals, "nobody", value=True), "Unknown")

    within(test)


@pytest.mark.parametrize("what", ["idd", "detached", "at", "pool", "tags", "scope"])
def test_options_that_cannot_be_are_refused_in_a_mutation_too(within: Callable[[Test], None], what: str) -> None:
    async def test(sw: Stepwell) -> None:
        await failed(sw.call(starts_with, what), "Invalid", what)
        assert [run async for run in sw.runs()] == []

    within(test)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("none", "Invalid"), ("id", "TooLarge"), ("payload", "NotJson"), ("source", "Invalid"), ("time", "Invalid")],
)
def test_an_event_that_is_none_fails_its_mutation(within: Callable[[Test], None], what: str, kind: str) -> None:
    async def test(sw: Stepwell) -> None:
        await failed(sw.call(sends_wrong, what), kind)
        assert (await sw.call(send, "e"))[0] is False

    within(test)

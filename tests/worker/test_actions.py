"""Actions: arguments, retries, timeouts, heartbeats, output."""

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.functions.action_context import ActionContext
from stepwell.functions.define import Retry
from stepwell.functions.errors import AppError, NonRetryable
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.errors import Invalid
from stepwell.model.rows import Run
from stepwell.worker.actions import idempotency_key

from .bodies import called
from .hall import QUICK, hall
from .loops import on_a_loop

AT_ONCE = Retry(3, initial=0.001)


@dataclass
class Order:
    id: str
    total: int


@on_a_loop
async def test_typed_arguments_and_results_async_and_not(tmp_path: Path) -> None:
    async def double(order: Order) -> Order:
        return Order(order.id, order.total * 2)

    def where(order: Order) -> str:
        return f"{order.id} {threading.current_thread() is threading.main_thread()}"

    async with hall(tmp_path) as it:
        it.work()
        one = await called(it, double, Order("a", 2))
        two = await called(it, where, Order("b", 2))
        assert await it.result(one) == {"id": "a", "total": 4}
        assert await it.result(two) == "b False"


@on_a_loop
async def test_the_context_and_a_key_that_all_attempts_share(tmp_path: Path) -> None:
    seen: list[tuple[int, str, Any]] = []

    async def act(ctx: ActionContext, x: int) -> str:
        seen.append((ctx.attempt, ctx.idempotency_key, ctx.last_details))
        ctx.heartbeat({"at": ctx.attempt})
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return ctx.run_id

    async with hall(tmp_path) as it:
        it.work()
        run_id = await called(it, act, 1, call={"retry": AT_ONCE})
        assert await it.result(run_id) == run_id
        assert [attempt for attempt, _, _ in seen] == [1, 2, 3]
        assert len({key for _, key, _ in seen}) == 1
        assert [details for _, _, details in seen] == [None, {"at": 1}, {"at": 2}]
        other = await it.start(it.registry.workflow("flow:act"))
        await it.result(other)
        assert len({key for _, key, _ in seen}) == 2, "another run has another key"


@on_a_loop
@pytest.mark.parametrize(
    ("error", "retry", "attempts"),
    [
        (ValueError("x"), AT_ONCE, 3),
        (ValueError("x"), Retry(3, initial=0.001, never=(ValueError,)), 1),
        (ValueError("x"), Retry(3, initial=0.001, only=(KeyError,)), 1),
        (KeyError("x"), Retry(3, initial=0.001, only=(KeyError,)), 3),
        (type("Declined", (NonRetryable,), {})("no money"), AT_ONCE, 1),
        (SystemExit(2), AT_ONCE, 1),
        (AppError({"why": "x"}), AT_ONCE, 3),
        (asyncio.CancelledError(), AT_ONCE, 3),
    ],
)
async def test_who_is_tried_again(tmp_path: Path, error: BaseException, retry: Retry, attempts: int) -> None:
    tried: list[int] = []

    async def act(ctx: ActionContext) -> None:
        tried.append(ctx.attempt)
        raise error

    async with hall(tmp_path) as it:
        it.work()
        failure = await it.error(await called(it, act, retry=retry))
        assert failure["type"] == type(error).__name__
        assert tried == list(range(1, attempts + 1))
        if isinstance(error, AppError):
            assert failure["data"] == {"why": "x"}


@on_a_loop
async def test_an_interrupt_is_no_failure_and_no_reason_to_spin(tmp_path: Path) -> None:
    def act(ctx: ActionContext) -> str:
        if ctx.attempt == 1:
            raise KeyboardInterrupt
        return "again"

    async with hall(tmp_path) as it:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stepwell.worker.actions.BROKEN_HANDLER_MS", 100)
            it.work()
            run_id = await called(it, act)
            assert await it.result(run_id) == "again"
        (ended,) = await it.entries(run_id, "attempt.ended")
        assert '"released"' in ended.data
        assert "next_at" in ended.data


@on_a_loop
async def test_no_policy_is_one_attempt(tmp_path: Path) -> None:
    def act() -> None:
        raise ValueError("once")

    async with hall(tmp_path) as it:
        it.work()
        failure = await it.error(await called(it, act))
        assert (failure["type"], failure["message"]) == ("ValueError", "once")
        assert "act" in failure["traceback"]
        assert "attempt.py" not in failure["traceback"]


@on_a_loop
async def test_what_is_no_json_or_too_large_fails_before_it_is_done(tmp_path: Path) -> None:
    async def no_json() -> Any:
        return {"x": object()}

    async def too_large() -> str:
        return "x" * (QUICK.payload_bytes + 1)

    async with hall(tmp_path) as it:
        it.work()
        one = await called(it, no_json, retry=AT_ONCE)
        two = await called(it, too_large, retry=AT_ONCE)
        assert (await it.error(one))["type"] == "NotJson"
        assert (await it.error(two))["type"] == "TooLarge"
        for run_id in (one, two):
            assert len(await it.entries(run_id, "action.failed")) == 1
            assert await it.entries(run_id, "attempt.ended") == [], "it would be the same again"


@on_a_loop
@pytest.mark.parametrize("blocking", [False, True])
async def test_a_timeout_is_of_one_attempt(tmp_path: Path, blocking: bool) -> None:
    let_go = threading.Event()
    tried: list[int] = []

    async def slow(ctx: ActionContext) -> str:
        tried.append(ctx.attempt)
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return "quick"

    def hangs(ctx: ActionContext) -> str:
        tried.append(ctx.attempt)
        if ctx.attempt == 1:
            let_go.wait(60)
        return "quick"

    async with hall(tmp_path) as it:
        it.work()
        run_id = await called(it, hangs if blocking else slow, timeout=0.05, retry=AT_ONCE)
        assert await it.result(run_id) == "quick"
        assert tried == [1, 2]
        let_go.set()
        (ended,) = await it.entries(run_id, "attempt.ended")
        assert "StepTimeout" in ended.data


@on_a_loop
@pytest.mark.parametrize("blocking", [False, True])
async def test_an_attempt_that_sends_no_heartbeat_is_over(tmp_path: Path, blocking: bool) -> None:
    let_go = threading.Event()
    tried: list[tuple[int, Any]] = []

    async def quiet(ctx: ActionContext) -> str:
        tried.append((ctx.attempt, ctx.last_details))
        ctx.heartbeat({"row": ctx.attempt})
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return "done"

    def hangs(ctx: ActionContext) -> str:
        tried.append((ctx.attempt, ctx.last_details))
        ctx.heartbeat({"row": ctx.attempt})
        if ctx.attempt == 1:
            let_go.wait(60)
        return "done"

    async with hall(tmp_path) as it:
        it.work()
        run_id = await called(it, hangs if blocking else quiet, heartbeat=0.1, timeout=30, retry=AT_ONCE)
        assert await it.result(run_id) == "done"
        let_go.set()
        assert tried == [(1, None), (2, {"row": 1})]
        (ended,) = await it.entries(run_id, "attempt.ended")
        assert "StepTimeout" in ended.data
        assert "the action sent no heartbeat for 0.1 s" in ended.data


@on_a_loop
async def test_heartbeats_count_and_so_does_silence(tmp_path: Path) -> None:
    async def beats(ctx: ActionContext) -> int:
        for row in range(10):
            ctx.heartbeat(None if row % 2 else row)
            await asyncio.sleep(0.05)
        return ctx.attempt

    async def silent(ctx: ActionContext) -> None:
        await asyncio.sleep(60)

    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await called(it, beats, call={"heartbeat": 0.25})) == 1
        failure = await it.error(await called(it, silent, heartbeat=0.05, retry=Retry(2, initial=0.001)))
        assert (failure["type"], failure["attempts"]) == ("StepTimeout", 2)


@on_a_loop
async def test_heartbeats_are_not_asked_of_what_cannot_send_them(tmp_path: Path) -> None:
    async def deaf() -> None:
        return

    async with hall(tmp_path) as it:
        it.work()
        with pytest.raises(Invalid, match="t:deaf has no context to send heartbeats with"):
            it.action(deaf, heartbeat=1)
        failure = await it.error(await called(it, deaf, call={"heartbeat": 1}))
        assert failure["type"] == "Invalid"
        assert "heartbeats" in failure["message"]


@on_a_loop
async def test_a_deadline_is_of_all_attempts(tmp_path: Path) -> None:
    async def never(ctx: ActionContext) -> None:
        await asyncio.sleep(60)

    async with hall(tmp_path) as it:
        it.work()
        begun = time.monotonic()
        failure = await it.error(await called(it, never, retry=AT_ONCE, deadline=0.2))
        assert failure["type"] == "StepTimeout"
        assert 0.2 <= time.monotonic() - begun < 3


@on_a_loop
async def test_output_from_the_loop_and_from_a_thread(tmp_path: Path) -> None:
    async def says(ctx: ActionContext) -> None:
        ctx.output("one ")
        ctx.output("two", kind="stderr")
        ctx.output("\ud800 is no text", kind="agent")
        output: Any = ctx.output
        with pytest.raises(Invalid, match="takes a text"):
            output(3)
        with pytest.raises(Invalid, match="no output of kind"):
            output("x", kind="shout")

    def says_much(ctx: ActionContext) -> None:
        for n in range(20_000):
            ctx.output(f"{n}\n")

    async with hall(tmp_path) as it:
        it.work()
        one, two = await called(it, says), await called(it, says_much)
        await it.result(one)
        await it.result(two)
        said = [(chunk.kind, chunk.text) for chunk in await it.output(one)]
        assert said == [("stdout", "one "), ("stderr", "two"), ("agent", "? is no text")]
        text = "".join(chunk.text for chunk in await it.output(two))
        assert text == "".join(f"{n}\n" for n in range(20_000))


@on_a_loop
async def test_details_that_are_too_large_are_the_actions_own_error(tmp_path: Path) -> None:
    async def act(ctx: ActionContext) -> None:
        ctx.heartbeat("x" * QUICK.payload_bytes)

    async with hall(tmp_path) as it:
        it.work()
        assert (await it.error(await called(it, act)))["type"] == "TooLarge"


@on_a_loop
async def test_details_come_with_the_heartbeats(tmp_path: Path) -> None:
    let_go = asyncio.Event()

    async def act(ctx: ActionContext) -> None:
        ctx.heartbeat({"page": 7})
        await let_go.wait()

    async with hall(tmp_path) as it:
        it.work()
        run_id = await called(it, act)
        details = None
        async with asyncio.timeout(5):
            while details is None:
                details = next((task.details for task in await it.tasks(run_id) if task.kind == "action"), None)
                await asyncio.sleep(0.02)
        assert msgspec.json.decode(details) == {"page": 7}
        let_go.set()
        await it.end(run_id)


@on_a_loop
async def test_an_action_may_call_another(tmp_path: Path) -> None:
    keys: list[str] = []

    async with hall(tmp_path) as it:

        def inner(ctx: ActionContext, order: Order) -> Order:
            keys.append(ctx.idempotency_key)
            return Order(order.id, order.total + 1)

        inside = it.action(inner)

        async def outer(ctx: ActionContext) -> list[int]:
            keys.append(ctx.idempotency_key)
            found = [await ctx.call(inside, Order("a", n)) for n in range(2)]
            return [one.total for one in found]

        it.work()
        assert await it.result(await called(it, outer)) == [1, 2]
        assert len(set(keys)) == 3
        assert keys[1].startswith(keys[0])


@on_a_loop
async def test_nobody_is_given_what_he_has_not(tmp_path: Path) -> None:
    async def act() -> str:
        return "mine"

    async with hall(tmp_path) as it:
        it.action(act)
        only_flows = Registry()
        for workflow in it.registry.of("workflow"):
            only_flows.register(workflow)
        run_id = await called(it, act, name="t:other")
        for workflow in it.registry.of("workflow"):
            only_flows.register(workflow)
        it.work(registry=only_flows)
        await it.parked(run_id)
        assert [task.state for task in await it.tasks(run_id) if task.kind == "action"] == ["ready"]
        it.work()
        assert await it.result(run_id) == "mine"


@on_a_loop
async def test_arguments_that_no_longer_fit_are_no_reason_to_try_again(tmp_path: Path) -> None:
    async def act(order: Order) -> str:
        return order.id

    async with hall(tmp_path) as it:
        run_id = await called(it, act, Order("a", 1), retry=AT_ONCE)
        it.work()

        async def act_now(order: Order, more: int) -> str:
            return order.id

        it.registry.get("t:act").fn = act_now
        it.registry.get("t:act").signature = it.action(act_now).signature
        assert (await it.error(run_id))["type"] == "ArgumentError"
        assert await it.entries(run_id, "attempt.ended") == []


def test_the_key_is_of_scope_run_generation_and_step() -> None:
    def key(step: str = "a#0", scope: str = "main", run_id: str = "r", generation: int = 1) -> str:
        run = Run(1, scope, run_id, generation=generation)
        return idempotency_key(c.Leased(c.Lease(1, 5, 1, "t"), run, "action", 1, 0, 0, 0, 0, key=step))

    keys = [key(), key("a#1"), key(scope="other"), key(run_id="s"), key(generation=2)]
    assert len(set(keys)) == 5
    assert key() == key()
    assert all(len(one) < 64 for one in keys)

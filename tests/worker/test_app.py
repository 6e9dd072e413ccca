"""`Worker`: a process that runs what others start, until it is told to end."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    ActionContext,
    Conflict,
    Context,
    Event,
    Invalid,
    MutationContext,
    RunError,
    StepError,
    StepTimeout,
    Stepwell,
    Unavailable,
    Worker,
    blocking,
)
from stepwell.model.settings import Settings
from stepwell.worker import turns
from stepwell.workflow.app import App
from tests.client.shop import Order, app, bakery, checkout, receipts
from tests.server.support import ROOT, environ
from tests.support import durable_url

SETTINGS = Settings(sync="normal", poll_ms=100)


def test_it_runs_what_others_start_until_it_is_stopped(tmp_path: Path) -> None:
    url = durable_url(tmp_path / "shop.db")

    async def main() -> None:
        worker = Worker(app, url, slots=2, settings=SETTINGS)
        running = asyncio.create_task(worker.run())
        async with Stepwell(url, app, worker=False, settings=SETTINGS) as sw:
            run = await sw.start(checkout, Order("1"))
            assert await run.result(timeout=10) == "r-1, thanks"
            assert await sw.call(receipts, "1") == ["r-1"]
            with pytest.raises(Invalid, match="runs already"):
                await worker.run()
            await worker.stop(drain=5)
            await running
            late = await sw.start(bakery, "bun")
            with pytest.raises(TimeoutError):
                await late.result(timeout=0.3)
            again = asyncio.create_task(worker.run())
            assert await late.result(timeout=10) == "bun, baked at try 1"
            await worker.stop()
            await again

    asyncio.run(main())


def test_an_action_called_from_outside_has_the_heartbeat_of_its_decorator() -> None:
    mine = App("mine")

    @mine.action(heartbeat=0.05)
    async def silent(ctx: ActionContext) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with Stepwell("memory:", mine, settings=SETTINGS) as sw:
            with pytest.raises(StepTimeout, match="sent no heartbeat"):
                await sw.call(silent)

    asyncio.run(main())


def test_a_worker_of_some_pools_leaves_the_others(tmp_path: Path) -> None:
    url = durable_url(tmp_path / "shop.db")

    async def main() -> None:
        worker = Worker(app, url, pools=("default",), settings=SETTINGS)
        running = asyncio.create_task(worker.run())
        async with Stepwell(url, app, worker=False, settings=SETTINGS) as sw:
            baking = await sw.start(bakery, "bun")  # whose action is in pool ovens
            assert await (await sw.start(checkout, Order("1"))).result(timeout=10) == "r-1, thanks"
            with pytest.raises(TimeoutError):
                await baking.result(timeout=0.3)
        await worker.stop()
        await running

    asyncio.run(main())


def test_sigterm_ends_it_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    url = durable_url(tmp_path / "shop.db")
    script = f"""
import asyncio
from stepwell import Worker
from stepwell.model.settings import Settings
from tests.client.shop import app
from tests.support import durable_url
asyncio.run(Worker(app, "{url}", settings=Settings(sync="normal", poll_ms=100, lease_ms=10_000)).run())
"""

    def worker() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, env=environ(), stderr=subprocess.PIPE, text=True
        )

    with blocking.Stepwell(url, app, worker=False, settings=SETTINGS) as sw:
        first = worker()
        try:
            assert sw.start(checkout, Order("1")).result(timeout=20) == "r-1, thanks"
        finally:
            first.send_signal(signal.SIGKILL)
            first.communicate()
        run = sw.start(checkout, Order("2"))
        second = worker()
        try:
            assert run.result(timeout=20) == "r-2, thanks"
            second.send_signal(signal.SIGTERM)
            _, said = second.communicate(timeout=20)
            assert (second.returncode, said) == (0, "")
        finally:
            second.kill()
            second.communicate()


def test_what_a_worker_cannot_be_is_said_clearly() -> None:
    nothing: Any = "shop:app"
    with pytest.raises(Invalid, match="needs an App"):
        Worker(nothing, "memory:")


def test_a_mutation_dispatches_on_the_flows_as_they_are_now(tmp_path: Path) -> None:
    """Another process that brings triggers in between makes the match of this one outdated, and it is made again."""
    url = durable_url(tmp_path / "shop.db")
    first, second = App("first"), App("second")

    @first.mutation
    def send(ctx: MutationContext, event_id: str) -> list[str]:
        return ctx.dispatch(Event("order.paid", {}, id=event_id)).run_ids

    @first.workflow
    async def sending(ctx: Context, event_id: str) -> list[str]:
        return await ctx.call(send, event_id)

    @second.workflow(on="order.paid")
    async def heard(ctx: Context, event: Event[dict[str, Any]]) -> str:
        return event.id

    async def main() -> None:
        async with Stepwell(url, first, settings=SETTINGS) as one:
            assert await one.call(send, "e0") == []
            async with Stepwell(url, second, settings=SETTINGS) as two:
                (run_id,) = await one.call(send, "e1")
                assert await two.handle(run_id).result(timeout=5) == "e1"
        async with Stepwell(url, first, settings=SETTINGS) as one:
            third = App("third")
            third.workflow(on="order.paid", name="third:heard")(heard.fn)
            async with Stepwell(url, third, settings=SETTINGS) as two:
                runs = await (await one.start(sending, "e2")).result(timeout=10)
                assert len(runs) == 2

    asyncio.run(main())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_mutation_whose_flows_cannot_be_looked_at_is_called_again_with_pauses_and_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    monkeypatch.setattr(turns, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", 0.01)
    url = durable_url(tmp_path / "shop.db")
    first, second = App("first"), App("second")
    asked: list[bool] = []

    @first.mutation
    def send(ctx: MutationContext) -> list[str]:
        return ctx.dispatch(Event("order.paid", {})).run_ids

    @first.workflow
    async def sending(ctx: Context) -> list[str]:
        return await ctx.call(send)

    @second.workflow(on="order.shipped")
    async def heard(ctx: Context, event: Event[Any]) -> None: ...

    async def main() -> None:
        async with Stepwell(url, first, settings=SETTINGS) as sw:
            local = sw._connection.local
            sync = local.flows.sync

            async def away(*, force: bool = False) -> int:
                asked.append(force)
                if comes_back and len(asked) == 3:
                    monkeypatch.setattr(local.flows, "sync", sync)
                    return await sync(force=force)
                raise Unavailable("the folder is away")

            monkeypatch.setattr(local.flows, "sync", away)
            async with Stepwell(url, second, worker=False, settings=SETTINGS):  # another process changes the flows
                pass
            run = await sw.start(sending)
            if comes_back:
                assert await run.result(timeout=5) == []
            else:
                with pytest.raises(RunError) as caught:
                    await run.result(timeout=5)
                assert caught.value.type == "Outdated"
            assert 3 <= len(asked) <= turns.MATCHES + 1

    asyncio.run(main())


def test_a_mutation_that_calls_stepwell_is_refused_instead_of_waiting_for_itself() -> None:
    own = App("own")
    opened: list[blocking.Stepwell] = []

    @own.mutation
    def nested(ctx: MutationContext) -> None:
        opened[0].start(quiet)

    @own.workflow
    async def quiet(ctx: Context) -> None: ...

    with blocking.Stepwell("memory:", own, settings=SETTINGS) as sw:
        opened.append(sw)
        with pytest.raises(StepError, match="nested calls the engine") as caught:
            sw.call(nested)
        assert caught.value.type == "Nested"
        assert [run.id for run in sw.runs()] == []
        assert sw.options(id="x").start(quiet).result(timeout=5) is None
        with pytest.raises(Conflict):
            sw.handle("x").cancel()

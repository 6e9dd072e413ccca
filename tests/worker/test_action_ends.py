"""How an action ends that does not come to its own end: canceled, without lease, with its worker, unheard."""

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.functions.action_context import ActionContext
from stepwell.model import commands as c

from .bodies import called
from .hall import QUICK, hall
from .loops import on_a_loop
from .site import true


@on_a_loop
async def test_an_action_whose_run_is_canceled_is_told(tmp_path: Path) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def act() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await called(it, act)
        await begun.wait()
        await it.engine.submit(c.Cancel(run_id, reason="enough"))
        async with asyncio.timeout(5):
            await cleaned.wait()
        assert (await it.end(run_id)).status == "canceled"
        await true(lambda: worker.busy == 0)


@on_a_loop
async def test_a_thread_learns_of_the_cancel_by_its_heartbeat(tmp_path: Path) -> None:
    begun, told = threading.Event(), threading.Event()

    def act(ctx: ActionContext) -> None:
        begun.set()
        try:
            while True:
                ctx.heartbeat()
                time.sleep(0.01)
        except asyncio.CancelledError:
            told.set()
            raise

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await called(it, act)
        await true(begun.is_set)
        await it.engine.submit(c.Cancel(run_id))
        await true(told.is_set)
        assert (await it.end(run_id)).status == "canceled"
        await true(lambda: worker.busy == 0)


@on_a_loop
async def test_who_has_lost_the_lease_stops_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def act(ctx: ActionContext) -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ctx.output("too late")
            stopped.set()
        return "x"

    async with hall(tmp_path) as it:
        run_id = await called(it, act)
        worker = it.work()
        await begun.wait()
        await it.engine.submit(c.Terminate(run_id))
        async with asyncio.timeout(5):
            await stopped.wait()
        await true(lambda: worker.busy == 0)
        assert await it.output(run_id) == []
        assert not [one for one in it.sent if isinstance(one, c.Finish | c.Fail)]


@on_a_loop
async def test_a_worker_that_stops_hands_the_action_back(tmp_path: Path) -> None:
    tried: list[tuple[int, Any]] = []
    begun = asyncio.Event()

    async def act(ctx: ActionContext) -> str:
        tried.append((ctx.attempt, ctx.last_details))
        if ctx.attempt == 1:
            ctx.heartbeat("half")
            begun.set()
            await asyncio.sleep(60)
        return "done"

    async with hall(tmp_path, settings=msgspec.structs.replace(QUICK, poll_ms=5_000)) as it:
        worker = it.work()
        run_id = await called(it, act)
        await begun.wait()
        await worker.stop(drain_s=0.05)
        assert [entry.kind for entry in await it.entries(run_id, "attempt.ended")] != []
        it.work()
        assert await it.result(run_id) == "done"
        assert tried == [(1, None), (2, "half")]


@on_a_loop
async def test_one_that_gets_ready_within_the_drain_is_done(tmp_path: Path) -> None:
    begun = asyncio.Event()

    def act() -> str:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.2)
        return "done"

    async with hall(tmp_path) as it:
        loop = asyncio.get_running_loop()
        worker = it.work()
        run_id = await called(it, act)
        await begun.wait()
        await worker.stop(drain_s=5)
        (entry,) = await it.entries(run_id, "action.completed")
        assert '"done"' in entry.data


@on_a_loop
async def test_a_lost_answer_is_asked_for_again(tmp_path: Path) -> None:
    async def act() -> str:
        it.away = (c.Finish,)
        loop.call_later(0.3, setattr, it, "away", ())
        return "once"

    async with hall(tmp_path) as it:
        loop = asyncio.get_running_loop()
        it.work()
        assert await it.result(await called(it, act)) == "once"

"""What users' code may do in its turns: break, exit, reach across threads, leave calls that nobody awaits."""

import asyncio
import contextlib
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stepwell.functions.errors import NondeterministicCall
from stepwell.model import commands as c
from stepwell.workflow.context import Context
from stepwell.workflow.turn import Turn

from .bodies import SLOW, note, steps
from .hall import hall
from .loops import on_a_loop
from .site import true

pytestmark = pytest.mark.stores("sqlite", "postgres")


@on_a_loop
async def test_one_body_that_breaks_its_host_breaks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("stepwell.worker.turns.BROKEN_HANDLER_MS", 50)
    original = Turn.answered

    async with hall(tmp_path) as it:
        victim = it.engine.new_id()

        def breaks(turn: Turn, reply: Any) -> None:
            if turn.leased.run.id == victim and turn.leased.attempt == 1:
                raise RuntimeError("a bug of the turn")
            original(turn, reply)

        monkeypatch.setattr(Turn, "answered", breaks)
        workflow = it.workflow(steps)
        await it.start(workflow, 3, run_id=victim)
        others = [await it.start(workflow, 3) for _ in range(10)]
        it.work()
        for run_id in others:
            assert await it.result(run_id) == 3
            assert len(await it.entries(run_id, "attempt.started")) == 1
        assert await it.result(victim) == 3
        assert len(await it.entries(victim, "attempt.started")) == 2


@on_a_loop
async def test_a_body_that_exits_fails_and_the_worker_lives(tmp_path: Path) -> None:
    async def leaves(ctx: Context) -> None:
        await ctx.step(note)
        raise SystemExit(3)

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(leaves))
        assert "exit" in (await it.error(run_id))["message"].lower()
        assert worker.trouble is None
        assert await it.result(await it.start(it.workflow(steps), 1)) == 1


@on_a_loop
async def test_bad_input_fails_the_run(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.work()
        workflow = it.workflow(steps)
        await it.engine.submit(
            c.StartRun("bad", workflow.path, input='{"n":"x"}', requires=f"workflow:{workflow.path}")
        )
        assert (await it.error("bad"))["type"] == "ArgumentError"


@on_a_loop
async def test_bodies_live_in_their_own_environment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def asks(ctx: Context) -> list[Any]:
        found: list[Any] = [time.time() == ctx.now().timestamp()]
        try:
            (tmp_path / "x").write_text("x")
        except NondeterministicCall as refused:
            found.append(refused.code)
        total = 0
        for n in range(4_000_000):
            total += n
        return found

    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await it.start(it.workflow(asks))) == [True, "nondeterministic_call"]
        assert time.time() > 1_000
        assert any("asks" in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


@on_a_loop
async def test_another_thread_that_reaches_into_a_body_fails_the_run(tmp_path: Path) -> None:
    """Also when the body waits, and nothing else would make anybody look at it."""
    let_go = threading.Event()

    def reaches(body: Any) -> None:
        let_go.wait(10)
        with contextlib.suppress(NondeterministicCall):
            body.call_soon_threadsafe(print)

    async def flow(ctx: Context) -> None:
        body = asyncio.get_running_loop()
        await ctx.step("thread", lambda: threading.Thread(target=reaches, args=(body,), daemon=True).start())
        await ctx.wait_for_signal("never")

    async with hall(tmp_path, settings=SLOW) as it:
        it.work()
        run_id = await it.start(it.workflow(flow))
        await true(lambda: len(it.turns[0].residents) == 1)
        let_go.set()
        failure = await it.error(run_id)
        assert failure["type"] == "NondeterministicCall"


async def long() -> None:
    await asyncio.sleep(60)


async def late(ctx: Context) -> None:
    await ctx.sleep(60)


def said_of_workflows(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "stepwell.workflow"]


@on_a_loop
async def test_calls_that_nobody_awaits_are_told_of_once_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def flow(ctx: Context) -> str:
        tasks = [
            asyncio.create_task(ctx.call(action)),
            asyncio.create_task(ctx.step("note", asyncio.sleep, 60)),
            asyncio.create_task(ctx.call(small)),
        ]
        await ctx.wait_for_signal("go")
        return str(len(tasks))

    async with hall(tmp_path) as it:
        action, small = it.action(long), it.workflow(late)
        run_id = await it.start(it.workflow(flow))
        it.work()
        await true(lambda: any(isinstance(one, c.Record) for one in it.sent))
        await it.signal(run_id, "go")
        assert await it.result(run_id) == "3"
        await it.workers[0].stop()
    (said,) = said_of_workflows(caplog)
    assert said.startswith(f"run {run_id} has ended with calls under way that nobody awaits")
    assert said.endswith("action t:long (0/t:long#0), a step (1/note#0), child workflow t:late (2/t:late#0)")


@on_a_loop
async def test_calls_that_were_awaited_or_given_up_are_not_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def flow(ctx: Context) -> None:
        await ctx.step("note", asyncio.sleep, 0)
        for call in (lambda: ctx.call(action), lambda: ctx.step("s", asyncio.sleep, 60), lambda: ctx.call(small)):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await call()

    async with hall(tmp_path) as it:
        action, small = it.action(long), it.workflow(late)
        run_id = await it.start(it.workflow(flow))
        it.work()
        await it.result(run_id)
    assert said_of_workflows(caplog) == []

"""Runs that are started where a worker is: leased in the commit that starts them, if they would be claimed here."""

import asyncio
import contextvars
from pathlib import Path
from typing import Any

import msgspec

from stepwell.functions.define import Workflow
from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.worker.held import Held
from stepwell.worker.worker import Worker
from stepwell.workflow.context import Context

from .bodies import SLOW, waits
from .hall import QUICK, Hall, hall
from .loops import on_a_loop
from .site import true


async def answers(ctx: Context) -> str:
    return "x"


def command_for(it: Hall, workflow: Workflow[Any, Any], **more: Any) -> c.StartRun:
    requires = f"workflow:{workflow.path}"
    return c.StartRun(it.engine.new_id(), workflow.path, "{}", workflow.version, requires=requires, **more)


def leased_at_once(started: c.Started) -> bool:
    return started.claim is not None


def claims_of(it: Hall) -> list[c.Command]:
    return [one for one in it.sent if type(one) is c.Claim]


@on_a_loop
async def test_one_commit_starts_and_leases_and_the_next_one_ends(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=SLOW) as it:
        worker, workflow = it.work(), it.workflow(answers)
        await true(lambda: len(claims_of(it)) == 2)
        before = it.engine.lanes.commits
        started = await worker.start_run(command_for(it, workflow))
        assert leased_at_once(started)
        assert await it.result(started.run_id) == "x"
        assert it.engine.lanes.commits - before == 2
        assert await it.kinds(started.run_id) == ["run.created", "attempt.started", "run.completed"]
        assert len(claims_of(it)) == 2, "nobody had to claim"


@on_a_loop
async def test_whoever_gives_up_waiting_for_the_answer_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=SLOW) as it:
        worker, workflow = it.work(), it.workflow(answers)
        command = command_for(it, workflow)
        starting = asyncio.create_task(worker.start_run(command))
        await asyncio.sleep(0)  # it is sent, and not answered yet
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert [one.claim_for is not None for one in it.sent if isinstance(one, c.StartRun)] == [True]
        await true(lambda: any(type(one) is c.Finish for one in it.sent))
        assert await it.result(command.id) == "x"


@on_a_loop
async def test_no_more_than_the_worker_may_run_the_rest_is_claimed_later(tmp_path: Path) -> None:
    """In one lane: a run that waits in another one goes first."""
    async with hall(tmp_path, settings=msgspec.structs.replace(QUICK, lanes=1)) as it:
        worker, workflow = it.work(runs=3), it.workflow(waits)
        started = await asyncio.gather(*(worker.start_run(command_for(it, workflow)) for _ in range(10)))
        assert sum(leased_at_once(one) for one in started) == 3
        for one in started:
            await it.signal(one.run_id, "go", one.run_id)
        assert [await it.result(one.run_id) for one in started] == [one.run_id for one in started]


@on_a_loop
async def test_what_others_have_or_comes_later_is_not_leased_here(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=SLOW) as it:
        worker, here = it.work(), it.workflow(answers)
        elsewhere = Workflow[Any, Any]("t", waits, {})
        assert not leased_at_once(await worker.start_run(command_for(it, elsewhere)))
        later = await worker.start_run(command_for(it, here, due_at=it.engine.clock_ms() + 60_000))
        assert not leased_at_once(later)
        assert (await it.run(later.run_id)).status == "queued"
        await it.engine.submit(c.SetPool(Pool("main", "few", limit=1)))
        limited = it.workflow(waits)
        few = [await worker.start_run(command_for(it, limited, pool="few")) for _ in range(2)]
        assert [leased_at_once(one) for one in few] == [True, False]


@on_a_loop
async def test_a_worker_of_some_pools_leases_only_what_is_in_them(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=SLOW) as it:
        it.work()
        turns, workflow = it.turns[0], it.workflow(answers)
        some = Worker(it.engine, {}, turns=turns, pools=("fast",))
        some.start()
        try:
            assert not leased_at_once(await some.start_run(command_for(it, workflow)))
            assert leased_at_once(await some.start_run(command_for(it, workflow, pool="fast")))
        finally:
            await some.stop()


@on_a_loop
async def test_an_end_of_the_worker_waits_for_the_answer_and_gives_the_run_back(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        worker, workflow = it.work(), it.workflow(answers)
        command = command_for(it, workflow)
        starting = asyncio.create_task(worker.start_run(command))
        await asyncio.sleep(0)  # it is sent, and not answered yet
        await worker.stop(drain_s=0)
        started = await starting
        assert leased_at_once(started)
        assert (await it.run(started.run_id)).status == "queued", "it is handed back, not left to its lease"
        after = await worker.start_run(command_for(it, workflow))
        assert not leased_at_once(after)
        it.work()
        assert await it.result(started.run_id) == await it.result(after.run_id) == "x"


@on_a_loop
async def test_the_same_id_again_is_the_same_run(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=SLOW) as it:
        worker, workflow = it.work(), it.workflow(answers)
        first = command_for(it, workflow)
        again = msgspec.structs.replace(first)
        one, other = await asyncio.gather(worker.start_run(first), worker.start_run(again))
        assert (one.run_no, one.created, other.created) == (other.run_no, True, False)
        assert leased_at_once(one)
        assert not leased_at_once(other)
        assert await it.result(one.run_id) == "x"
        assert len(await it.entries(one.run_id, "attempt.started")) == 1


class Watching:
    """Turns that tell in which request they run."""

    def __init__(self, turns: Any, request: contextvars.ContextVar[str]) -> None:
        self._turns, self._request = turns, request
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._turns, name)

    async def __call__(self, held: Held) -> None:
        self.seen.append(self._request.get())
        await self._turns(held)


@on_a_loop
async def test_a_run_does_not_live_in_the_context_of_whoever_started_it(tmp_path: Path) -> None:
    request = contextvars.ContextVar("request", default="of nobody")
    async with hall(tmp_path, settings=SLOW) as it:
        it.work()
        turns: Any = Watching(it.turns[0], request)
        worker, workflow = Worker(it.engine, {}, turns=turns), it.workflow(answers)
        worker.start()
        try:
            request.set("of a caller")
            started = await worker.start_run(command_for(it, workflow))
            assert leased_at_once(started)
            assert await it.result(started.run_id) == "x"
            assert turns.seen == ["of nobody"]
        finally:
            await worker.stop()

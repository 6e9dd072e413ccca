"""72 to 85: starting, the journal, results, time and chance (source: spec orchestrator E.5, B.3 to B.9)."""

import asyncio
import json
import logging
import random
import time
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stepwell import ArgumentError, Context, Event, Handle, Pool, RunCanceled, RunError, Signal, StepError
from tests.conformance_workflow.support import Place, entries, on_a_loop, refused, resting, seen, story


async def one() -> int:
    return 1


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_72_bad_arguments_are_raised_and_leave_nothing_and_a_body_that_raises_has_failed(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context, n: int) -> int:
        raise ValueError(f"{n} is bad")

    async with place.open() as sw:
        wrong: Any = "seven"
        await refused(sw.start(flow, wrong), ArgumentError, "n")
        missing: Any = sw.start
        await refused(missing(flow), ArgumentError, "n")
        assert [run.id async for run in sw.runs()] == []
        run = await sw.start(flow, 7)
        error = await refused(run.result(), RunError, "7 is bad")
        assert (error.type, (await run.status()).status) == ("ValueError", "failed")
        assert "in flow" in error.traceback


@dataclass
class Paid:
    total: int


@on_a_loop
async def test_73_start_does_not_wait_and_an_event_that_does_not_fit_fails_its_run(place: Place) -> None:
    ran: list[int] = []

    @place.app.workflow(on="order.paid")
    async def paid(ctx: Context, event: Event[Paid]) -> int:
        ran.append(event.payload.total)
        return event.payload.total

    async with place.open(worker=False) as sw:
        run = await sw.start(paid, Event("order.paid", Paid(1)))
        assert (await run.status()).status == "queued"
    async with place.open() as sw:
        good = await sw.dispatch(Event("order.paid", {"total": 7}))
        assert await sw.handle(*good.run_ids).result() == 7
        bad = await sw.dispatch(Event("order.paid", {"total": "seven"}))
        error = await refused(sw.handle(*bad.run_ids).result(), RunError, "total")
        assert error.type == "ArgumentError"
    assert ran[-1] == 7


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


CODE = """
from stepwell import Context
from tests.conformance_workflow.support import new_app

app = new_app()


async def work(n: int) -> str:
    return f"done {n}"


@app.action(name="t:pay")
async def pay(n: int) -> str:
    return await work(n)


@app.workflow
async def flow(ctx: Context) -> str:
    found = await ctx.call(pay, 1)
    await ctx.sleep(0.01)
    await ctx.wait_for_signal("go")
    return found
"""


class Versions:
    """One file of code as it is changed from time to time."""

    def __init__(self, folder: Path) -> None:
        self._file, self._n = folder / "code.py", 0

    def __call__(self, old: str = "", new: str = "") -> Any:
        """The module, with something in it replaced."""
        self._n += 1
        text = CODE.replace(old, new) if old else CODE
        self._file.write_text(text)
        module = types.ModuleType(f"code_{self._n}")
        exec(compile(text, str(self._file), "exec"), module.__dict__)
        return module


async def held(run: Handle[Any]) -> str:
    """Why a run is held, as soon as it is."""
    (entry,) = await seen(run, "run.held")
    view = await run.status()
    assert (view.hold, view.needs_attention, view.ended) == ("mismatch", True, False)
    diff: str = entry.body["diff"]
    return diff


async def begun(disk: Place, folder: Path) -> tuple[Versions, str]:
    """A run that waits for its signal in the first version of its code."""
    versions = Versions(folder)
    first = versions()
    async with disk.open(first.app) as sw:
        run: Handle[Any] = await sw.start(first.flow)
        await seen(run, "timer.fired")
    return versions, run.id


@on_a_loop
@pytest.mark.parametrize(
    ("change", "now"),
    [
        (("ctx.call(pay", "ctx.options(name='t:refund').call(pay"), "has not asked for it"),
        (("ctx.call(pay", "ctx.options(name='t:pay').step(work"), "asks for a step"),
        (("    found = await ctx.call(pay, 1)\n", "    found = ''\n"), "has not asked for it"),
    ],
)
async def test_74_code_that_does_not_fit_its_journal_holds_the_run_and_shows_both(
    disk: Place, tmp_path: Path, change: tuple[str, str], now: str
) -> None:
    versions, run_id = await begun(disk, tmp_path)
    async with disk.open(versions(*change).app) as sw:
        run = sw.handle(run_id)
        await run.signal("go")
        diff = await held(run)
        assert "- journal   action.scheduled t:pay" in diff
        assert f"+ code      {now}" in diff
    async with disk.open(versions().app) as sw:
        assert await sw.handle(run_id).result() == "done 1", "it goes on by itself when the code fits again"


@on_a_loop
@pytest.mark.parametrize("change", [("pay, 1", "pay, 2"), ("sleep(0.01", "sleep(3_600")])
async def test_74_other_arguments_and_a_finished_sleep_of_another_length_fit(
    disk: Place, tmp_path: Path, change: tuple[str, str]
) -> None:
    versions, run_id = await begun(disk, tmp_path)
    async with disk.open(versions(*change).app) as sw:
        run = sw.handle(run_id)
        await run.signal("go")
        assert await run.result() == "done 1", "what is recorded counts"


@on_a_loop
async def test_75_another_kind_of_function_is_reported_and_another_length_counts_for_a_sleep_that_goes_on(
    disk: Place, tmp_path: Path
) -> None:
    versions = Versions(tmp_path)
    old = versions("sleep(0.01", "sleep(3_600")
    async with disk.open(old.app) as sw:
        sleeps: Handle[Any] = await sw.start(old.flow)
        await seen(sleeps, "action.completed")
        await sleeps.signal("go")
    async with disk.open(versions("ctx.call(pay", "ctx.options(name='t:pay').step(work").app) as sw:
        await sw.handle(sleeps.id).signal("look")
        assert "action.scheduled" in await held(sw.handle(sleeps.id))
    async with disk.open(versions().app) as sw:
        assert await sw.handle(sleeps.id).result() == "done 1"


@on_a_loop
async def test_76_a_hundred_replays_repeat_no_step(disk: Place) -> None:
    ran: list[str] = []
    lives, more = 0, Signal("more", int)

    async def stepped(n: int) -> int:
        ran.append(f"step {n}")
        return n

    @disk.app.action
    async def acted(n: int) -> int:
        ran.append(f"action {n}")
        return n

    @disk.app.workflow
    async def flow(ctx: Context) -> int:
        nonlocal lives
        lives += 1
        total = await ctx.step(stepped, 1) + await ctx.call(acted, 2)
        for _ in range(100):
            total += await ctx.wait_for_signal(more)
        return total

    async with disk.open() as sw:
        run = await sw.start(flow)
        for n in range(100):
            await seen(run, "run.parked", n + 1)
            await run.signal(more, 1)
        assert await run.result() == 103
    assert ran == ["step 1", "action 2"]
    assert lives > 100


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_77_nothing_is_none_failed_can_be_caught_and_canceled_says_so(place: Place) -> None:
    @place.app.action
    async def nothing() -> None:
        return None

    @place.app.action
    async def fails() -> None:
        raise OSError("no disk")

    @place.app.workflow
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(3_600)

    @place.app.workflow
    async def flow(ctx: Context) -> list[str]:
        said = [repr(one) for one in await asyncio.gather(ctx.call(nothing))]
        try:
            await ctx.call(fails)
        except StepError as error:
            said.append(f"{error.type} {error.message}")
        child = await ctx.start(sleeps)
        await child.cancel("not needed")
        try:
            await child.result()
        except RunCanceled as error:
            said.append(f"{type(error).__name__} {error.message}")
        return said

    async with place.open() as sw:
        found = await (await sw.start(flow)).result()
        assert found[:2] == ["None", "OSError no disk"]
        assert found[2].startswith("RunCanceled")


@on_a_loop
async def test_78_a_body_that_returns_nothing_completes_with_null(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> Any:
        await ctx.step(one)

    async with place.open() as sw:
        run = await sw.start(flow)
        assert await run.result() is None
        (end,) = await entries(run, "run.completed")
        assert end.body["result"] is None


@on_a_loop
async def test_79_a_result_that_is_not_of_its_type_fails_the_run(place: Place) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> int:
        wrong: int = json.loads('"seven"')
        return wrong

    async with place.open() as sw:
        error = await refused((await sw.start(flow)).result(), RunError, "int", "str")
        assert error.type == "NotJson"


# ── side by side ─────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_80_a_pool_is_exactly_as_wide_as_it_says(place: Place) -> None:
    running, most = 0, 0

    @place.app.action(pool=Pool("two", 2))
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return n

    @place.app.workflow
    async def flow(ctx: Context) -> list[int]:
        return await asyncio.gather(*(ctx.call(work, n) for n in range(11)))

    async with place.open() as sw:
        assert await (await sw.start(flow)).result() == list(range(11))
    assert most == 2


@on_a_loop
async def test_81_each_result_comes_as_it_is_there_so_a_race_has_a_winner(place: Place) -> None:
    slow = asyncio.Event()

    async def work(n: int) -> int:
        if n == 0:
            await slow.wait()
        return n

    @place.app.workflow
    async def race(ctx: Context) -> list[int]:
        return [await done for done in asyncio.as_completed([ctx.step(work, 0), ctx.step(work, 1)])]

    @place.app.workflow
    async def times_out(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await ctx.wait_for_signal("go", str)
        except TimeoutError:
            return "in time"

    async with place.open() as sw:
        run = await sw.start(race)
        await seen(run, "step.completed")
        slow.set()
        assert await run.result() == [1, 0]
        assert await (await sw.start(times_out)).result() == "in time"


# ── time, chance, words ──────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_82_time_is_the_same_in_each_life_and_stands_still_between_awaits(place: Place) -> None:
    lives: list[list[Any]] = []

    @place.app.workflow
    async def flow(ctx: Context) -> list[float]:
        told: list[Any] = [ctx.now(), ctx.now(), datetime.now(UTC), time.time()]
        lives.append(told)
        await ctx.step(one)
        told += [ctx.now(), time.time()]
        await ctx.wait_for_signal("go")
        told += [ctx.now(), time.time()]
        return [told[0].timestamp(), told[4].timestamp(), told[6].timestamp()]

    async with place.open() as sw:
        run = await sw.start(flow)
        (step,) = await seen(run, "step.completed")
        await asyncio.sleep(0.05)
        await run.signal("go")
        began, stepped, signaled = await run.result()
        (signal,) = await entries(run, "signal.received")
        assert (stepped, signaled) == (step.at.timestamp(), signal.at.timestamp())
        assert began <= stepped < signaled
    assert all(told[0] == told[1] == told[2] and told[3] == began for told in lives)
    assert all(told[:6] == lives[0][:6] for told in lives)


@on_a_loop
async def test_83_chance_is_the_same_in_each_life_and_another_in_each_run(place: Place) -> None:
    lives: list[list[Any]] = []

    @place.app.workflow
    async def flow(ctx: Context) -> list[str]:
        told = [ctx.random.random(), random.random(), str(ctx.uuid()), str(uuid4())]
        lives.append(told)
        await ctx.wait_for_signal("go")
        return [str(one) for one in told] + [str(random.random())]

    async with place.open() as sw:
        found = []
        for _ in range(2):
            run = await sw.start(flow)
            await seen(run, "attempt.started") if place.stays else await resting(run)
            await run.signal("go")
            found.append(await run.result())
    assert not set(found[0]) & set(found[1])
    assert {tuple(map(str, told)) for told in lives} == {tuple(one[:4]) for one in found}


@on_a_loop
async def test_84_a_line_is_said_once(
    place: Place, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    @place.app.workflow
    async def flow(ctx: Context) -> None:
        ctx.log.info("begins")
        logging.getLogger("mine").info("begins, too")
        print("printed")
        for _ in range(3):
            await ctx.wait_for_signal("go")
        ctx.log.info("ends")

    caplog.set_level(logging.INFO)
    async with place.open() as sw:
        run = await sw.start(flow)
        for n in range(3):
            await seen(run, "attempt.started", n + 1) if not place.stays else None
            await run.signal("go")
        await run.result()
    said = [record.getMessage() for record in caplog.records if record.name.startswith(("mine", "stepwell.workflow"))]
    assert [line.rpartition("] ")[2] for line in said] == ["begins", "begins, too", "ends"]
    assert capsys.readouterr().out.count("printed") == 1


@on_a_loop
@pytest.mark.parametrize("real", ["open", "socket", "thread", "sleep", "environ"])
async def test_85_what_is_real_is_refused_in_a_body_with_the_line(place: Place, real: str, tmp_path: Any) -> None:
    import os
    import socket

    acts: dict[str, Any] = {
        "open": lambda: (tmp_path / "x").write_text("x"),
        "socket": lambda: socket.getaddrinfo("localhost", 1),
        "thread": lambda: asyncio.get_running_loop().run_in_executor(None, one),
        "sleep": lambda: time.sleep(0.01),
        "environ": lambda: os.environ.get("HOME"),
    }

    @place.app.workflow
    async def flow(ctx: Context) -> None:
        acts[real]()

    async with place.open() as sw:
        run = await sw.start(flow)
        error = await refused(run.result(), RunError)
        assert error.type == "NondeterministicCall"
        assert "test_engine.py" in f"{error} {error.traceback}"
        assert await story(run) == ["run.created", "run.failed"]

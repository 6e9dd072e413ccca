"""What a resident run hears of what others write: from the commit itself, or by asking when that is not enough."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.workflow.context import Context

from .hall import QUICK, Hall, hall
from .loops import on_a_loop
from .site import true

pytestmark = pytest.mark.stores("sqlite", "postgres")

NEVER_PARKS = msgspec.structs.replace(QUICK, poll_ms=5_000, lease_ms=60_000, linger_ms=60_000)


async def collects(ctx: Context, count: int) -> list[str]:
    return [await ctx.wait_for_signal("go", str) for _ in range(count)]


async def double(n: int) -> int:
    return 2 * n


def asked(it: Hall) -> int:
    return sum(type(one) is c.Sync for one in it.sent)


async def resident(it: Hall, count: int) -> str:
    it.work()
    run_id = await it.start(it.workflow(collects), count)
    await true(lambda: len(it.turns[0].residents) == 1)
    return run_id


@on_a_loop
async def test_signals_come_with_the_commit_that_wrote_them(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        run_id = await resident(it, 3)
        for value in ("a", "b", "c"):
            await it.signal(run_id, "go", value)
        assert await it.result(run_id) == ["a", "b", "c"]
        assert asked(it) == 0, "nothing had to be asked for"


@on_a_loop
async def test_a_large_one_is_asked_for(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        run_id = await resident(it, 3)
        large = "x" * (2 * it.engine.settings.blob_over_bytes)
        for value in ("a", large, "c"):
            await it.signal(run_id, "go", value)
        assert await it.result(run_id) == ["a", large, "c"]
        assert asked(it) > 0


@on_a_loop
async def test_nothing_is_left_out_when_a_hint_was_lost(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        run_id = await resident(it, 3)
        number = (await it.run(run_id)).no
        told = it.engine._listeners[number]
        it.engine.unlisten(number, told)
        await it.signal(run_id, "go", "a")
        it.engine.listen(number, told)
        await it.signal(run_id, "go", "b")
        await it.signal(run_id, "go", "c")
        assert await it.result(run_id) == ["a", "b", "c"]
        assert asked(it) > 0


@on_a_loop
async def test_what_an_action_wrote_in_between_is_no_gap(tmp_path: Path) -> None:
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        doubling = it.action(double)

        async def calls(ctx: Context) -> int:
            return await ctx.call(doubling, 21)

        run_id = await it.start(it.workflow(calls))
        it.work()
        assert await it.result(run_id) == 42
        kinds = await it.kinds(run_id)
        assert kinds.index("attempt.started", 2) < kinds.index("action.completed"), "not for the body"
        assert asked(it) == 0


def acting() -> tuple[list[str], Callable[[Context], Coroutine[Any, Any, None]]]:
    """What was done, and a body that does it when a signal comes."""
    did: list[str] = []

    async def act() -> None:
        did.append("act")

    async def goes_on(ctx: Context) -> None:
        await ctx.wait_for_signal("go")
        await ctx.step("act", act)

    return did, goes_on


@on_a_loop
async def test_a_run_that_was_paused_does_nothing_when_something_comes(tmp_path: Path) -> None:
    did, goes_on = acting()
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(goes_on))
        await true(lambda: len(it.turns[0].residents) == 1)
        await it.engine.submit(c.HoldRun(run_id))
        await it.signal(run_id, "go")
        await true(lambda: not worker._held())
        assert did == [], "the pause took the lease"
        await it.engine.submit(c.ReleaseRun(run_id))
        await it.end(run_id)
        assert did == ["act"]


@on_a_loop
async def test_whoever_lost_the_run_to_another_does_nothing_with_what_comes(tmp_path: Path) -> None:
    """The host that is late listens longer than it may: its lease went by a pause, and another worker has the run."""
    did, goes_on = acting()
    async with hall(tmp_path, settings=NEVER_PARKS) as it:
        first = it.work()
        run_id = await it.start(it.workflow(goes_on))
        await true(lambda: len(it.turns[0].residents) == 1)
        number = (await it.run(run_id)).no
        late: Any = it.engine._listeners[number]
        await it.engine.submit(c.HoldRun(run_id))
        await it.engine.submit(c.ReleaseRun(run_id))
        await true(lambda: it.engine._listeners[number] != late)
        it.engine.listen(number, late)
        await it.signal(run_id, "go")
        await true(lambda: len(first._held()) == 1)
        assert did == []

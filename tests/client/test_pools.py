"""Pools that a call or a start gives: their limits hold for that call already, whether a function names them or not."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Context, MutationContext, Pool, Stepwell
from stepwell.model import commands as c
from stepwell.model import rows
from stepwell.model.settings import Settings
from tests.support import durable_url

SETTINGS = Settings(sync="normal", poll_ms=100)
CALLS = 6


class Gauge:
    """How many run at once, and how many did at the most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def work(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1


def within(app: App, test: Callable[[Stepwell], Awaitable[None]], url: str = "memory:") -> None:
    async def main() -> None:
        async with Stepwell(url, app, settings=SETTINGS, slots=CALLS) as sw:
            await asyncio.wait_for(test(sw), 20)

    asyncio.run(main())


async def pools(sw: Stepwell, scope: str = "main") -> dict[str, int | None]:
    rows: list[Any] = await sw._connection.engine.read(lambda reader: reader.pools(scope))
    return {pool.name: pool.limit for pool in rows}


@pytest.mark.parametrize("scope", ["main", "other"])
@pytest.mark.parametrize("child", [False, True], ids=["actions", "children"])
def test_a_pool_of_a_call_limits_the_first_calls_already(tmp_path: Path, scope: str, child: bool) -> None:
    app, gauge = App("pools"), Gauge()

    @app.action
    async def act() -> None:
        await gauge.work()

    @app.workflow
    async def small(ctx: Context) -> None:
        await ctx.step("work", gauge.work)

    @app.workflow
    async def flow(ctx: Context) -> None:
        one = ctx.options(pool=Pool("x", 2))
        await asyncio.gather(*((one.call(small) if child else one.call(act)) for _ in range(CALLS)))

    async def test(sw: Stepwell) -> None:
        run = await sw.options(scope=scope).start(flow)
        await run.result()
        assert gauge.most == 2
        assert await pools(sw, scope) == {"x": 2}

    within(app, test, durable_url(tmp_path / "pools.db"))


def test_a_pool_of_a_start_does_from_outside_and_from_a_mutation() -> None:
    app, gauge = App("pools"), Gauge()

    @app.workflow
    async def small(ctx: Context) -> None:
        await ctx.step("work", gauge.work)

    @app.action
    async def act() -> None:
        await gauge.work()

    @app.mutation
    def many(ctx: MutationContext) -> list[str]:
        return [ctx.options(pool=Pool("inside", 1)).start(small) for _ in range(CALLS)]

    async def test(sw: Stepwell) -> None:
        outside = sw.options(pool=Pool("outside", 2))
        runs = await asyncio.gather(*(outside.start(small) for _ in range(CALLS)))
        await asyncio.gather(*(run.result() for run in runs))
        assert gauge.most == 2
        gauge.most = 0
        await asyncio.gather(*(sw.options(pool=Pool("called", 3)).call(act) for _ in range(CALLS)))
        assert gauge.most == 3
        gauge.most = 0
        started = await sw.call(many)
        await asyncio.gather(*(sw.handle(run_id).result() for run_id in started))
        assert gauge.most == 1
        assert await pools(sw) == {"outside": 2, "called": 3, "inside": 1}

    within(app, test)


def test_a_pool_that_a_function_names_keeps_its_limits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App("pools")

    @app.action(pool=Pool("x", 5))
    async def act() -> None: ...

    @app.workflow
    async def small(ctx: Context) -> None: ...

    @app.mutation
    def inside(ctx: MutationContext) -> str:
        return ctx.options(pool=Pool("x", 1)).start(small)

    @app.workflow
    async def flow(ctx: Context) -> None:
        await ctx.call(act)
        await ctx.options(pool=Pool("x", 2)).call(act)
        await ctx.options(pool=Pool("x", 3)).call(act)
        await ctx.options(pool=Pool("x")).call(act)
        await ctx.call(inside)

    async def test(sw: Stepwell) -> None:
        with caplog.at_level(logging.WARNING):
            await (await sw.start(flow)).result()
        assert await pools(sw) == {"x": 5}
        (said,) = [one.getMessage() for one in caplog.records if "a function names" in one.getMessage()]
        assert "a call gives Pool('x', 2, per_key=None, rate=None)" in said

    within(app, test)


def test_limits_that_change_follow_the_last_call_and_a_pause_stays() -> None:
    app = App("pools")

    @app.workflow
    async def small(ctx: Context) -> None: ...

    async def test(sw: Stepwell) -> None:
        engine = sw._connection.engine
        await engine.submit(c.SetPool(rows.Pool("main", "x", paused=True)))
        await sw.options(pool=Pool("x", 2), delay=60).start(small)
        await sw.options(pool=Pool("x", 4), delay=60).start(small)
        (pool,) = await engine.read(lambda reader: reader.pools("main"))
        assert (pool.limit, pool.paused) == (4, True)
        await sw.options(pool=Pool("free"), delay=60).start(small)
        assert list(await pools(sw)) == ["x"]

    within(app, test)


@pytest.mark.parametrize("scope", ["main", "other"])
def test_a_pool_that_a_function_names_limits_what_a_mutation_starts_in_any_scope(scope: str) -> None:
    app, gauge = App("pools"), Gauge()

    @app.workflow(pool=Pool("w", 1))
    async def small(ctx: Context) -> None:
        await ctx.step("work", gauge.work)

    @app.action(pool=Pool("a", 2))
    async def act() -> None: ...

    @app.mutation
    def many(ctx: MutationContext) -> list[str]:
        ctx.enqueue(act)
        return [ctx.start(small) for _ in range(CALLS)]

    async def test(sw: Stepwell) -> None:
        there = sw.options(scope=scope)
        started = await there.call(many)
        await asyncio.gather(*(there.handle(run_id).result() for run_id in started))
        assert gauge.most == 1
        assert await pools(sw, scope) == {"a": 2, "w": 1}

    within(app, test)

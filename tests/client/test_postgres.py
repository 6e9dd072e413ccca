"""A program on PostgreSQL: the same app, and several processes that share its runs."""

import asyncio
from pathlib import Path

from stepwell import App, Context, Signal, Stepwell
from stepwell.model.settings import Settings
from stepwell.store.postgres.store import PostgresStore
from tests.support import assert_lawful, postgres

SETTINGS = Settings(poll_ms=200)
app = App("parcels")
signed = Signal("signed", str)


@app.action
async def weigh(parcel: int) -> int:
    return parcel * 10


@app.workflow
async def post(ctx: Context, parcel: int) -> int:
    return await ctx.call(weigh, parcel) + await ctx.step("stamp", lambda: 1)


@app.workflow
async def send(ctx: Context, parcels: int) -> str:
    weights = await asyncio.gather(*(ctx.call(post, number) for number in range(parcels)))
    await ctx.sleep(0.05)
    by = await ctx.wait_for_signal(signed)
    return f"{sum(weights)} by {by}"


def test_several_share_the_runs_of_one_database(tmp_path: Path) -> None:
    url = postgres.address(tmp_path)

    async def main() -> list[str]:
        async with (
            Stepwell(url, app, settings=SETTINGS) as one,
            Stepwell(url, app, settings=SETTINGS) as two,
            Stepwell(url, app, settings=SETTINGS, worker=False) as three,
        ):
            begun = [await three.options(id=f"r{number}").start(send, 3) for number in range(6)]
            await asyncio.gather(*(one.handle(run.id).signal(signed, run.id) for run in begun))
            found = [two.handle(run.id, send) for run in begun]
            return await asyncio.wait_for(asyncio.gather(*(run.result() for run in found)), 30)

    assert asyncio.run(main()) == [f"33 by r{number}" for number in range(6)]
    assert_lawful(PostgresStore(url), SETTINGS)


def test_what_ran_goes_on_when_it_is_opened_again(tmp_path: Path) -> None:
    url = postgres.address(tmp_path)

    async def main() -> str:
        async with Stepwell(url, app, settings=SETTINGS) as sw:
            await sw.options(id="r").start(send, 1)
        async with Stepwell(url, app, settings=SETTINGS) as sw:
            run = sw.handle("r", send)
            await run.signal(signed, "me")
            return await asyncio.wait_for(run.result(), 30)

    assert asyncio.run(main()) == "1 by me"

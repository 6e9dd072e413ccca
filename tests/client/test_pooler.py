"""Behind pgbouncer in transaction mode: each transaction may meet another connection of the server."""

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell import App, Context, Handle, Signal, Stepwell, Unavailable
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.support import assert_lawful
from tests.support.pgbouncer import Pooler, pooler
from tests.support.postgres import Server

SETTINGS = Settings(poll_ms=200, linger_ms=300)
#: Of a machine that has other things to do.
MARGIN_S = 0.5
app = App("ferry")
ahoy = Signal("ahoy", float)


@app.action
async def row(stroke: int) -> int:
    return stroke + 1


def since(sent: float) -> float:
    return time.time() - sent


@app.workflow
async def cross(ctx: Context, passengers: int) -> int:
    strokes = await asyncio.gather(*(ctx.call(row, number) for number in range(passengers)))
    return sum(strokes) + await ctx.step("land", lambda: 1)


@app.workflow
async def listen(ctx: Context, calls: int) -> list[float]:
    """How long each call took to be heard."""
    heard = []
    for _ in range(calls):
        sent = await ctx.wait_for_signal(ahoy)
        heard.append(await ctx.step("hear", since, sent))
    return heard


def test_more_clients_than_connections_share_the_runs(tmp_path: Path) -> None:
    url = pooler().database(tmp_path)

    async def main() -> list[int]:
        async with (
            Stepwell(url, app, settings=SETTINGS) as one,
            Stepwell(url, app, settings=SETTINGS),
            Stepwell(url, app, settings=SETTINGS, worker=False) as three,
        ):
            begun = [await one.options(id=f"r{number}").start(cross, 5) for number in range(20)]
            found = [three.handle(run.id, cross) for run in begun]
            return await asyncio.wait_for(asyncio.gather(*(run.result() for run in found)), 30)

    assert asyncio.run(main()) == [16] * 20
    assert_lawful(open_store(url, SETTINGS), SETTINGS)
    with closing(psycopg.connect(url.removesuffix("&pooled=true"), prepare_threshold=None)) as left:
        assert left.execute("select name from pg_prepared_statements").fetchall() == [], "others would meet them"
        set_ = left.execute("select name from pg_settings where source = 'session'").fetchall()
        assert set_ in ([], [("application_name",)]), "that one the pooler keeps apart"


def test_what_another_process_sends_is_heard_within_a_poll(tmp_path: Path) -> None:
    """Nobody can listen behind it, so the poll is what there is: for a body in memory, and for one that is parked."""
    url, calls = pooler().database(tmp_path), 8

    async def main() -> list[float]:
        async with (
            Stepwell(url, app, settings=SETTINGS) as one,
            Stepwell(url, app, settings=SETTINGS, worker=False) as two,
        ):
            run = await one.options(id="r").start(listen, calls)
            for number in range(calls):
                await until(run, number, parked=number % 2 == 1)
                await two.handle("r").signal(ahoy, time.time())
            return await run.result(timeout=20)

    heard = asyncio.run(main())
    assert max(heard) <= SETTINGS.poll_ms / 1_000 + MARGIN_S, heard


async def until(run: Handle[Any], heard: int, *, parked: bool) -> None:
    """Until it has heard so many calls, and until it is parked."""
    async with asyncio.timeout(10):
        while True:
            kinds = [entry.kind async for entry in run.journal()]
            if kinds.count("step.completed") == heard and (kinds[-1] == "run.parked" or not parked):
                return
            await asyncio.sleep(0.01)


def test_a_server_that_is_away_behind_it_is_said_to_be_away() -> None:
    server = Server()
    away = Pooler(server.conninfo, wait_s=1)
    open_store(away.url(), SETTINGS).migrate()
    server.crash()
    with pytest.raises(Unavailable, match=r"cannot (open|reach) postgresql:") as raised:
        open_store(away.url(), SETTINGS).migrate()
    assert "Check the address" in raised.value.hint
    away.close()
    server.close()

"""Queries that a workflow asks: what one raises is its outcome, and a store that is away is waited for."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import pytest

from stepwell import App, Context, QueryContext, StepError, Stepwell, Unavailable
from stepwell.model.settings import Settings
from tests.support import durable_url, postgres
from tests.support.proxy import TcpProxy

SETTINGS = Settings(sync="normal", poll_ms=200)
WORD = "cut here"
app = App("querying")


@app.query
def raises(ctx: QueryContext) -> int:
    raise Unavailable("its own back end")


@app.workflow
async def catches(ctx: Context) -> str:
    try:
        return str(await ctx.call(raises))
    except StepError as error:
        return f"{error.type}: {error.message}"


@app.query
def says(ctx: QueryContext) -> list[str]:
    try:
        return ctx.db.all(f"select '{WORD}' as said", type=str)
    except Exception as error:
        raise Unavailable("what it makes of it") from error


@app.workflow
async def asks(ctx: Context) -> list[str]:
    return await ctx.call(says)


@pytest.mark.stores("sqlite", "postgres")
def test_what_a_query_raises_can_be_caught_whatever_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stepwell(durable_url(tmp_path / "app.db"), app, settings=SETTINGS) as sw:
            run = await sw.start(catches)
            assert await run.result(timeout=10) == "Unavailable: its own back end"
            with pytest.raises(StepError, match="its own back end"):
                await sw.call(raises)

    asyncio.run(main())


class Cutting(TcpProxy):
    """Cuts so many connections at the word of the query."""

    def __init__(self, url: str, left: int) -> None:
        self.left_to_cut = left
        super().__init__(url)

    def passes(self, data: bytes, other: socket.socket, asks: bool) -> bool:
        if self.left_to_cut and asks and WORD.encode() in data:
            self.left_to_cut -= 1
            return False
        return super().passes(data, other, asks)


@pytest.mark.stores("postgres")
def test_a_connection_that_is_lost_under_a_query_is_none_of_its_business(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it makes of that. A read is tried twice, so after three cuts it was asked again."""
    caplog.set_level("WARNING", "stepwell.worker")

    async def main(url: str) -> None:
        async with Stepwell(url, app, settings=SETTINGS) as sw:
            run = await sw.start(asks)
            assert await run.result(timeout=10) == [WORD]
            assert [one.getMessage().partition(" is asked")[0] for one in caplog.records] == [
                f"{says.path}#0 of run {run.id}"
            ]

    url = postgres.address(tmp_path)
    with closing(Cutting(url, 3)) as proxy:
        asyncio.run(main(proxy.url))
        assert proxy.left_to_cut == 0

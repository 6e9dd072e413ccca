"""A PostgreSQL server that crashes under load, or stands still: nothing that was answered is gone, nothing is twice."""

import asyncio
from collections.abc import Iterator

import pytest

from stepwell import App, Context, Stepwell
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.store.postgres.store import PostgresStore
from tests.support.postgres import Server

from .writers import SETTINGS, assert_all_there_once, writing

CRASHES, WRITERS = 2, 3


@pytest.fixture
def server() -> Iterator[Server]:
    """Its commits outlive its processes, which is what is at stake here."""
    server = Server(synchronous_commit="on")
    yield server
    server.close()


def test_a_server_that_crashes_under_load_loses_nothing(server: Server) -> None:
    stores = [PostgresStore(server.url) for _ in range(WRITERS)]

    async def main() -> None:
        async with writing(stores) as writers:
            for _ in range(CRASHES):
                await asyncio.gather(*(writer.wrote(5) for writer in writers))
                server.crash()
                await asyncio.sleep(0.3)  # for this long there is none
                troubles = [writer.engine.trouble for writer in writers]
                assert all(troubles), "readiness tells"
                assert str(server.folder) not in str(troubles), "but not where it is"
                assert not any(writer.engine.stopped for writer in writers)
                server.start()
            await asyncio.gather(*(writer.wrote(5) for writer in writers))
            assert not any(writer.engine.trouble for writer in writers)
        assert_all_there_once(stores[0], writers)

    asyncio.run(main())


def test_who_waits_through_a_crash_hears_what_comes_after_it(server: Server) -> None:
    async def main() -> None:
        async with Engine(PostgresStore(server.url), settings=SETTINGS) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            ended = asyncio.ensure_future(engine.wait_end(number, timeout_s=10))
            await asyncio.sleep(0)
            server.crash()
            await asyncio.to_thread(server.start)
            await engine.submit(c.Terminate("r"))
            run = await ended
            assert run is not None
            assert run.status == "canceled"

    asyncio.run(main())


def test_what_a_worker_does_meanwhile_is_kept_and_done_once(server: Server) -> None:
    """Its lease is its own as long as it lasts, and what it did is written when there is a database again."""
    app, begun, go = App("a"), asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    @app.action
    async def slow(name: str) -> str:
        calls.append(name)
        begun.set()
        await go.wait()
        return name.upper()

    @app.workflow
    async def work(ctx: Context) -> list[str]:
        return [await ctx.call(slow, "one"), await ctx.call(slow, "two")]

    async def main() -> None:
        async with Stepwell(server.url, app, settings=SETTINGS) as sw:
            run = await sw.start(work)
            await begun.wait()
            server.crash()
            go.set()
            await asyncio.sleep(0.3)  # its result has nowhere to go
            assert calls == ["one"]
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                assert await run.result() == ["ONE", "TWO"]
            assert calls == ["one", "two"]

    asyncio.run(main())


def test_a_server_that_stands_still_is_waited_for(server: Server) -> None:
    async def main() -> None:
        async with Engine(PostgresStore(server.url), settings=SETTINGS) as engine:
            await engine.submit(c.StartRun("r", "wf"))
            with server.stands_still():
                answers = [asyncio.ensure_future(engine.submit(c.Signal("r", "s", str(n)))) for n in range(3)]
                done, _ = await asyncio.wait(answers, timeout=0.5)
                assert not done
            assert [answer.seq for answer in await asyncio.gather(*answers)] == [2, 3, 4]
            assert engine.trouble is None

    asyncio.run(main())


def test_an_engine_closes_although_its_server_stands_still(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.engine.engine.CLOSE_S", 0.3)

    async def main() -> None:
        async with Engine(PostgresStore(server.url + "&connect_timeout=1"), settings=SETTINGS) as engine:
            await engine.submit(c.StartRun("r", "wf"))
            with server.stands_still():
                answers = [asyncio.ensure_future(engine.submit(c.Signal("r", "s", str(n)))) for n in range(3)]
                reads = [asyncio.ensure_future(engine.read(lambda reader: reader.counts())) for _ in range(3)]
                await asyncio.wait(answers, timeout=0.2)
                async with asyncio.timeout(10):
                    await engine.close()
            replies = await asyncio.gather(*answers, *reads, return_exceptions=True)
            assert {type(reply) for reply in replies} == {Unavailable}

    asyncio.run(main())

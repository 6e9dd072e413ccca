"""A primary with a synchronous standby: the primary dies, the standby is promoted, the writers find it."""

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest

from stepwell.store.postgres.store import PostgresStore
from tests.support.postgres import Server, Standby

from .writers import assert_all_there_once, writing

WRITERS, MORE = 3, 10


def do(server: Server, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.conninfo, autocommit=True) as db:
        cursor = db.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def pair() -> Iterator[tuple[Server, Standby]]:
    """The primary, each of whose commits waits until the standby has it, and the standby."""
    primary = Server(synchronous_commit="on")
    standby = Standby(primary, synchronous_commit="on")
    do(primary, "alter system set synchronous_standby_names = '*'")
    do(primary, "select pg_reload_conf()")
    while do(primary, "select sync_state from pg_stat_replication") != [("sync",)]:
        time.sleep(0.02)  # it has no other sign of having caught up
    yield primary, standby
    for server in (primary, standby):
        server.close()


def test_no_answered_commit_is_missing_on_the_standby_and_nothing_is_there_twice(pair: tuple[Server, Standby]) -> None:
    primary, standby = pair
    hosts = quote(",".join(server.conninfo.split()[0].removeprefix("host=") for server in pair), safe="")
    url = f"postgresql://test@/postgres?host={hosts}&target_session_attrs=read-write"

    async def main() -> None:
        async with writing([PostgresStore(url) for _ in range(WRITERS)]) as writers:
            await asyncio.gather(*(writer.wrote(MORE) for writer in writers))
            receiver = standby.stop_receiving()
            await asyncio.sleep(0.3)  # what is answered now, the standby will not have
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.lose_received, receiver)
            await asyncio.sleep(0.5)  # the standby takes no writes yet
            assert all(writer.engine.trouble for writer in writers)
            before = [len(writer.signaled) for writer in writers]
            await asyncio.to_thread(do, standby, "select pg_promote()")
            await asyncio.gather(*(writer.wrote(MORE) for writer in writers))
            assert all(len(writer.signaled) > count for writer, count in zip(writers, before, strict=True))
            assert not any(writer.engine.trouble for writer in writers)
        assert_all_there_once(PostgresStore(standby.url), writers)

    asyncio.run(main())

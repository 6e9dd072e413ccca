"""Who closes does not wait for a server that has stopped to answer, also while a connection is being opened."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from stepwell.engine.engine import Engine
from stepwell.store.postgres.store import PostgresStore
from tests.support import postgres
from tests.support.proxy import Slow

#: What comes first on a connection, and what comes first when it is open.
STARTS, SETS = b"user\0", b"plan_cache_mode"
SOON_S = 3


@contextmanager
def far_away(folder: Path, word: bytes) -> Iterator[tuple[Slow, PostgresStore]]:
    """A slow server, and the store behind it."""
    url = postgres.address(folder)
    with closing(Slow(url, word)) as slow:
        yield slow, PostgresStore(slow.url)


@pytest.mark.parametrize("word", [STARTS, SETS], ids=["starting", "open"])
def test_a_connection_that_is_being_opened_is_cut(tmp_path: Path, word: bytes) -> None:
    with far_away(tmp_path, word) as (slow, far), ThreadPoolExecutor(1) as pool:
        opening = pool.submit(far.connect)
        assert slow.held.wait(SOON_S)
        far.cut()
        if word == STARTS:  # the driver has it not yet: it gives up after its own time, or gets it now
            slow.free.set()
        try:
            with pytest.raises(psycopg.OperationalError):
                opening.result(SOON_S)
        finally:
            slow.free.set()
        assert slow.left.wait(SOON_S), "it is not left open"


def test_who_breaks_off_the_opening_of_an_engine_does_not_wait_for_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.engine.engine.CLOSE_S", 0.1)

    async def main(slow: Slow, far: PostgresStore) -> None:
        opening = asyncio.create_task(Engine(far).__aenter__())
        assert await asyncio.to_thread(slow.held.wait, SOON_S)
        opening.cancel()
        done, _ = await asyncio.wait([opening], timeout=SOON_S)
        slow.free.set()
        assert done
        assert opening.cancelled()

    with far_away(tmp_path, SETS) as (slow, far):
        asyncio.run(main(slow, far))

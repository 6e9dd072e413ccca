"""Opening and closing, broken off at any moment and with callers in the middle: nothing is left open, nobody hangs."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Handle, Stepwell, Unavailable, blocking
from stepwell.model.settings import Settings
from tests.client.shop import app, progress, tidy
from tests.support import durable_url

SETTINGS = Settings(sync="normal", poll_ms=60_000)
#: Seconds after which an opening or a closing is broken off; all of it takes some hundredths.
MOMENTS = (0, 0.001, 0.002, 0.005, 0.01, 0.02)


def own_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("stepwell")}


@pytest.fixture
def sw(tmp_path: Path) -> Stepwell:
    assert own_threads() == set()
    return Stepwell(durable_url(tmp_path / "shop.db"), app, settings=SETTINGS)


async def broken_off(work: Awaitable[Any], after_s: float) -> bool:
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=after_s)
    task.cancel()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)
    return task.cancelled()


@pytest.mark.parametrize("after_s", MOMENTS)
def test_an_opening_that_is_canceled_leaves_nothing_open(sw: Stepwell, after_s: float) -> None:
    async def main() -> None:
        if await broken_off(sw.__aenter__(), after_s):
            assert own_threads() == set()
            await sw.__aenter__()
        assert await (await sw.options(delay=60).start(tidy)).get(progress) is None
        await sw.__aexit__(None, None, None)
        assert own_threads() == set()

    asyncio.run(main())


@pytest.mark.parametrize("after_s", MOMENTS)
def test_a_closing_that_is_canceled_closes_all_the_same(sw: Stepwell, after_s: float) -> None:
    async def main() -> None:
        await sw.__aenter__()
        await sw.start(tidy)
        await broken_off(sw.__aexit__(None, None, None), after_s)
        assert own_threads() == set()
        async with sw:
            assert len([run async for run in sw.runs()]) == 1

    asyncio.run(main())


def test_two_who_close_wait_for_the_same_end(sw: Stepwell) -> None:
    async def main() -> None:
        await sw.__aenter__()
        await asyncio.gather(sw.__aexit__(None, None, None), sw.__aexit__(None, None, None))
        assert own_threads() == set()

    asyncio.run(main())


def test_one_who_closes_while_it_opens_waits_for_that(sw: Stepwell) -> None:
    async def main() -> None:
        opening = asyncio.create_task(sw.__aenter__())
        await asyncio.sleep(0)
        await sw.__aexit__(None, None, None)
        await asyncio.wait([opening])
        assert own_threads() == set()
        with pytest.raises(Unavailable):
            await sw.start(tidy)

    asyncio.run(main())


def test_who_waits_while_it_is_closed_is_told_at_once(sw: Stepwell) -> None:
    seen = asyncio.Event()

    async def items(run: Handle[None]) -> None:
        async for _ in run.watch():
            seen.set()

    async def said(run: Handle[None]) -> None:
        async for _ in run.output(follow=True):
            pass

    async def main() -> None:
        async with sw:
            run = await sw.options(delay=60).start(tidy)
            waiting = [asyncio.create_task(one) for one in (run.result(), items(run), said(run))]
            await asyncio.wait_for(seen.wait(), 5)
        told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert [type(one) for one in told] == [Unavailable] * 3, told
        assert all(isinstance(one, Unavailable) and one.hint for one in told)

    asyncio.run(main())


def test_readers_and_writers_do_not_hold_up_the_end(sw: Stepwell) -> None:
    async def busy() -> int:
        done = 0
        try:
            while True:
                await sw.runs().page(limit=1)
                await sw.options(delay=60).start(tidy)
                done += 1
        except Unavailable:
            return done

    async def main() -> None:
        for _ in range(3):
            async with sw:
                callers = [asyncio.create_task(busy()) for _ in range(20)]
                await sw.start(tidy)
            assert len(await asyncio.wait_for(asyncio.gather(*callers), 10)) == 20
        assert own_threads() == set()

    asyncio.run(main())


def test_an_app_whose_tables_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "0001_bad.sql").write_text("create tabel t (a text)")
    sw = Stepwell(durable_url(tmp_path / "shop.db"), App("bad", migrations=tmp_path), settings=SETTINGS)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(Exception, match="tabel"):
                await sw.__aenter__()
            assert own_threads() == set()
        (tmp_path / "0001_bad.sql").write_text("create table t (a text)")
        async with sw:
            assert [run async for run in sw.runs()] == []

    asyncio.run(main())


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("after_s", MOMENTS)
def test_an_interrupt_of_a_blocking_one_leaves_nothing_open(tmp_path: Path, after_s: float, closing: bool) -> None:
    sw = blocking.Stepwell(durable_url(tmp_path / "shop.db"), app, settings=SETTINGS)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    if closing:
        sw.__enter__()
        sw.start(tidy)
    with contextlib.suppress(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, max(after_s, 1e-6))
        if closing:
            sw.__exit__(None, None, None)
        else:
            sw.__enter__()
        signal.pause()
    signal.signal(signal.SIGALRM, before)
    sw.__exit__(None, None, None)  # the interrupt may have come before anything was done
    for thread in threading.enumerate():
        if thread.name == "stepwell-blocking":  # it ends by itself when nobody could wait for it
            thread.join(5)
    assert own_threads() == set()
    with sw:
        assert sw.runs().page(limit=2)[1] is None

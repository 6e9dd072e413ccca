"""A workflow in the memory of one server, or parked, and a signal that another server takes: heard, not polled for."""

import asyncio
from pathlib import Path

import pytest

from stepwell import App, Context, Signal, Stepwell
from stepwell.model.settings import Settings
from tests.support import postgres

app, go = App("servers"), Signal("go", int)
#: Longer than any test: whoever polls is late.
LATE_MS = 60_000


@app.workflow
async def adds(ctx: Context, times: int) -> int:
    return sum([await ctx.wait_for_signal(go) for _ in range(times)])


@pytest.mark.parametrize("linger_ms", [LATE_MS, 1], ids=["in memory", "parked"])
def test_what_another_server_takes_is_heard(tmp_path: Path, linger_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.store.postgres.store.HEARD_S", 600.0)
    url, settings = postgres.address(tmp_path), Settings(poll_ms=LATE_MS, linger_ms=linger_ms)

    async def main() -> None:
        async with (
            Stepwell(url, app, settings=settings) as one,
            Stepwell(url, app, settings=settings, worker=False) as two,
        ):
            handle = await one.options(id="r").start(adds, 5)
            for number in range(5):
                await two.handle("r").signal(go, number)
                await asyncio.sleep(0.05)  # so that it waits again, in most cases: any order is right
            async with asyncio.timeout(30):
                assert await handle.result() == 10
                assert await two.handle("r", adds).result() == 10

    asyncio.run(main())

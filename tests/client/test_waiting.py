"""Waiting for a run that was started here: nothing is read, and it is the right life of the run that is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stepwell import App, Context, Stepwell
from stepwell.engine.engine import Engine

app = App("waiting")


@app.workflow
async def double(ctx: Context, n: int) -> int:
    return 2 * n


@app.workflow
async def large(ctx: Context, size: int) -> str:
    return "x" * size


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each read of a query on a thread."""
    told: list[int] = []
    read = Engine._with_reader

    def counted(self: Engine, *args: Any) -> Any:
        told.append(1)
        return read(self, *args)

    monkeypatch.setattr(Engine, "_with_reader", counted)
    return told


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/s.sqlite"])
def test_the_result_of_a_run_that_was_just_started_is_read_from_nowhere(
    url: str, tmp_path: Path, reads: list[int]
) -> None:
    async def main() -> None:
        async with Stepwell(url.format(tmp_path), app) as sw:
            await (await sw.start(double, 1)).result()
            before = len(reads)
            runs = await asyncio.gather(*(sw.start(double, n) for n in range(50)))
            assert await asyncio.gather(*(run.result(timeout=5) for run in runs)) == [2 * n for n in range(50)]
            assert await runs[7].result() == 14
            assert len(reads) - before < 10, "the roles look now and then"
            assert await sw.handle(runs[7].id, double).result() == 14

    asyncio.run(main())


def test_a_large_result_comes_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stepwell(f"sqlite:///{tmp_path}/s.sqlite", app) as sw:
            for size in (3_000, 200_000):
                assert await (await sw.start(large, size)).result(timeout=5) == "x" * size

    asyncio.run(main())


def test_a_run_that_is_replaced_answers_with_its_new_life(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stepwell(f"sqlite:///{tmp_path}/s.sqlite", app) as sw:
            for n in (1, 2, 3):
                run = await sw.options(id="same", if_exists="replace").start(double, n)
                assert await run.result(timeout=5) == 2 * n
            again = await sw.options(id="same").start(double, 3)
            assert await again.result(timeout=5) == 6

    asyncio.run(main())

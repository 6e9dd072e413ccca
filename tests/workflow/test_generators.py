"""Async generators: those of a body are closed with it, all others by the loop to which they belong."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

from stepwell.workflow import generators
from stepwell.workflow.loop import WorkflowLoop
from tests.workflow.bodies import BodyHost


async def counting(closed: list[str], name: str) -> AsyncIterator[int]:
    try:
        for n in range(1_000):
            yield n
    finally:
        closed.append(name)


async def takes_one(closed: list[str], name: str) -> None:
    async for _ in counting(closed, name):
        break  # and leaves the rest to whoever finds it


def body(closed: list[str]) -> WorkflowLoop:
    """A loop on which a body has begun a generator, let go of it, and waits."""
    loop = BodyHost().loop

    async def waits() -> None:
        await takes_one(closed, "of the body")
        await loop.create_future()

    loop.create_root(waits())
    loop.pump()
    return loop


def test_without_another_loop_everything_is_as_before() -> None:
    before = sys.get_asyncgen_hooks()
    closed: list[str] = []
    loop = body(closed)
    assert sys.get_asyncgen_hooks() == before
    gc.collect()
    assert closed == [], "no collector decides when a body's finally runs"
    loop.evict()
    assert sys.get_asyncgen_hooks() == before


def test_the_pumping_loop_closes_its_own_and_no_others() -> None:
    closed: list[str] = []

    async def main() -> None:
        await takes_one(closed, "before")
        await asyncio.sleep(0)
        loop = body(closed)
        await takes_one(closed, "after")
        kept = counting(closed, "kept")
        await anext(kept)
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["before", "after"], "the loop's own are closed at once, the body's is kept"
        loop.evict()
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["before", "after"], "what is left of a body runs nowhere else"

    before = sys.get_asyncgen_hooks()
    asyncio.run(main())
    assert closed == ["before", "after", "kept"], "asyncio.run closes what is left"
    assert sys.get_asyncgen_hooks() == before


def test_they_are_set_once_for_all_pumps() -> None:
    async def main() -> None:
        loops = [body([]) for _ in range(3)]
        first = sys.get_asyncgen_hooks()
        assert type(first.firstiter) is generators.Hooks
        for loop in loops:
            loop.evict()
        assert sys.get_asyncgen_hooks() == first

    asyncio.run(main())


def test_one_that_takes_the_place_of_one_that_is_gone_is_its_own() -> None:
    """Numbers of objects are used again."""
    asked: list[Any] = []
    ended: list[Any] = []
    hooks = generators.Hooks(WorkflowLoop, (asked.append, ended.append))

    class Generator:
        pass

    one: Any = Generator()
    hooks._kept.add(id(one))  # a body's generator was here before it
    hooks(one)
    hooks.ended(one)
    assert asked == ended == [one]

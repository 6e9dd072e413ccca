"""How threads take turns and when garbage is looked for: changed while an engine is open, and then as it was."""

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from stepwell.engine.borrowed import SWITCH_S, switching
from stepwell.engine.engine import Engine
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(700, 10, 10)
    yield
    sys.setswitchinterval(before)
    gc.set_threshold(*thresholds)


def now_us() -> int:
    return round(sys.getswitchinterval() * 1e6)


def test_the_first_engine_shortens_it_and_the_last_one_puts_it_back() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=Settings(switch_us=400)):
            assert now_us() == 400
            second = Engine(MemoryStore())
            async with second:
                assert now_us() == 400
            await second.close()
            assert now_us() == 400
        assert now_us() == 5_000

    asyncio.run(main())


def test_zero_leaves_it_alone_and_so_does_one_that_somebody_has_chosen() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=Settings(switch_us=0)):
            assert now_us() == 5_000
        sys.setswitchinterval(0.002)
        async with Engine(MemoryStore()):
            assert now_us() == 2_000
        assert now_us() == 2_000

    asyncio.run(main())


def test_what_was_changed_meanwhile_stays() -> None:
    interval = switching()
    interval.enter(0.0005)
    sys.setswitchinterval(0.001)
    interval.leave()
    assert now_us() == 1_000


def test_an_engine_that_cannot_open_counts_for_nothing() -> None:
    class Broken(MemoryStore):
        def migrate(self) -> None:
            raise OSError("no disk")

    async def main() -> None:
        engine = Engine(Broken())
        with pytest.raises(OSError, match="no disk"):
            await engine.__aenter__()
        await engine.close()
        async with Engine(MemoryStore()):
            assert now_us() == 500
        assert now_us() == 5_000

    asyncio.run(main())


def test_garbage_is_looked_for_less_often_while_an_engine_is_open() -> None:
    async def main() -> None:
        async with Engine(MemoryStore(), settings=Settings(collect_objects=30_000)):
            assert gc.get_threshold() == (30_000, 10, 10)
        assert gc.get_threshold() == (700, 10, 10)
        gc.set_threshold(1_234, 5, 6)
        async with Engine(MemoryStore()):
            assert gc.get_threshold() == (1_234, 5, 6)
        gc.set_threshold(700, 10, 10)
        async with Engine(MemoryStore(), settings=Settings(collect_objects=0)):
            assert gc.get_threshold() == (700, 10, 10)

    asyncio.run(main())

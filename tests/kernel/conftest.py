"""The rules without any I/O: the memory store is dictionaries, the clock is a number."""

from collections.abc import Iterator

import pytest

from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench whose store must be lawful at the end of the test."""
    bench = Bench(MemoryStore())
    yield bench
    bench.close()
    assert_lawful(bench.store, bench.settings)

"""The shop, open on each store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functions.shop import Counter, Shop, opened
from tests.support import STORES, assert_lawful


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(params=sorted(STORES))
def counter(request: pytest.FixtureRequest, tmp_path: Path, shop: Shop) -> Iterator[Counter]:
    """A counter whose store must be lawful at the end."""
    with opened(request.param, tmp_path, shop) as counter:
        yield counter
        assert_lawful(counter.store, counter.bench.settings)

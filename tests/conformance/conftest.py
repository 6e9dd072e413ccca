"""One suite for every store: each test runs on each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.store.port import Session, Store
from tests.support import STORES, Bench, assert_lawful, open_store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = open_store(request.param, tmp_path)
    yield store
    store.close()


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()
    assert_lawful(store)


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    session = store.session("lane")
    yield session
    session.close()

"""What only PostgreSQL can do is tested on a schema of its own, which goes with the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.store import PostgresStore
from tests.support.stores import migrated

from .support import Sessions


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PostgresStore]:
    with migrated(tmp_path) as store:
        yield store


@pytest.fixture
def sessions(store: PostgresStore) -> Iterator[Sessions]:
    opened: list[PostgresSession] = []

    def open_session(lane: str) -> PostgresSession:
        opened.append(store.session(lane))
        return opened[-1]

    yield open_session
    for session in opened:
        session.close()

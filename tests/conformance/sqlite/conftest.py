"""What only SQLite does is tested on a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.store.sqlite.store import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "s.sqlite", sync="normal")
    store.migrate()
    yield store
    store.close()

"""The stores that one suite is run against. Another store is one more line."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from stepwell.store.memory import MemoryStore
from stepwell.store.port import Store
from stepwell.store.postgres.store import PostgresStore
from stepwell.store.sqlite.store import SqliteStore
from tests.support import postgres

#: How to open each store in a folder; the same folder again is the same database, where the store keeps one.
STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "store.sqlite", sync="normal"),
    "postgres": lambda folder: PostgresStore(postgres.address(folder)),
}
#: Those whose apps speak SQLite's SQL.
LITE = ("memory", "sqlite")


#: What `durable` opens, for this process and its children: sqlite, or postgres.
CHOICE = "STEPWELL_TEST_STORE"


def on_postgres() -> bool:
    """Whether tests that name a file mean PostgreSQL."""
    return os.environ.get(CHOICE) == "postgres"


def durable(path: Path, *, sync: str = "full") -> Store:
    """The store of a test that names a file: that file, or the schema on PostgreSQL that stands for it."""
    return PostgresStore(postgres.address(path)) if on_postgres() else SqliteStore(path, sync=sync)


def durable_url(path: Path) -> str:
    """The same, as a URL."""
    return postgres.address(path) if on_postgres() else f"sqlite:///{path}"


def by_hand(path: Path) -> AbstractContextManager[Any]:
    """A connection to what `durable` opens, for SQL that both understand; each statement is a transaction."""
    store: Any = durable(path)
    return closing(store.connect())


def open_store(name: str, folder: Path) -> Store:
    """A migrated store."""
    store = STORES[name](folder)
    store.migrate()
    return store


@contextmanager
def migrated(folder: Path) -> Iterator[PostgresStore]:
    """A store on PostgreSQL of its own."""
    with closing(PostgresStore(postgres.address(folder))) as store:
        store.migrate()
        yield store

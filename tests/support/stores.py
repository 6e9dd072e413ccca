"""The stores that one suite is run against. Another store is one more line."""

from collections.abc import Callable
from pathlib import Path

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
#: Those with tables of the app: on PostgreSQL they are still to come.
APP_STORES = ("memory", "sqlite")


def open_store(name: str, folder: Path) -> Store:
    """A migrated store."""
    store = STORES[name](folder)
    store.migrate()
    return store

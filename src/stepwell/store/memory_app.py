"""The app's tables of a memory store: a SQLite database in memory, which begins and ends with the store's transaction.

An oracle has no use for a database language of its own make, so here the two stores share the guard. The kernel's
tables are there, too, and empty: what is refused is refused in the same words.
"""

import sqlite3
from collections.abc import Callable, Sequence

from stepwell.kernel.calls import Result
from stepwell.store.port import AppMigration
from stepwell.store.sqlite.app_schema import apply_migrations
from stepwell.store.sqlite.guarded import Guarded, Mode
from stepwell.store.sqlite.script import statements
from stepwell.store.sqlite.sql import migrations, sql


class MemoryApp:
    """One database, used under the store's lock. It is made when somebody first asks for it."""

    def __init__(self) -> None:
        self._made: sqlite3.Connection | None = None
        self._guarded: tuple[Mode, Guarded] | None = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._made is None:
            self._made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._made.execute(sql("ledger/create"))
            for statement in (one for _, _, script in migrations() for one in statements(script)):
                self._made.execute(statement)
        return self._made

    def guarded(self, mode: Mode) -> Guarded:
        """The database as an app may use it, in a transaction if it is to write."""
        if mode == "write" and not self._db.in_transaction:
            self._db.execute("begin")
        if self._guarded is None or self._guarded[0] != mode:
            self._guarded = (mode, Guarded(self._db, mode))
        return self._guarded[1]

    def migrate(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        self._guarded = None
        return apply_migrations(self._db, app, migrations)

    def commit(self) -> None:
        if self._made is not None and self._made.in_transaction:
            self._made.execute("commit")

    def rollback(self) -> None:
        if self._made is not None and self._made.in_transaction:
            self._made.execute("rollback")

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = self._guarded = None


class MemoryTables:
    """The app's tables as a session (`write`) or a reader (`read`) has them."""

    def __init__(self, app: MemoryApp, mode: Mode) -> None:
        self._app, self._mode = app, mode

    def execute(self, sql: str, values: Sequence[object], limit: int) -> Result:
        return self._app.guarded(self._mode).execute(sql, values, limit)

    def settle(self) -> None:
        self._app.guarded(self._mode).settle()

    def until(self, left_s: Callable[[], float] | None) -> None:
        self._app.guarded(self._mode).until(left_s)

    def save(self) -> None:
        self._app.guarded(self._mode).save()

    def keep(self) -> None:
        self._app.guarded(self._mode).keep()

    def back(self) -> None:
        self._app.guarded(self._mode).back()

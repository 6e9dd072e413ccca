"""The app's tables of a SQLite file in a copy. A backup of another store has them, too, as it cannot have its own.

There they stand as `stepwell_app_NAME`, with the rows and no rules: an app cannot use them, and a copy finds them.
"""

import sqlite3
from collections.abc import Sequence

from stepwell.model.errors import Invalid
from stepwell.store.app_copying import AppTable, Ledger, refuse_missing
from stepwell.store.sqlite.guarded import is_kernels
from stepwell.store.sqlite.sql import sql
from stepwell.store.sums import Batches, batched

PREFIX = "stepwell_app_"


class SqliteApp:
    """The tables of an app, in a file. `prefix`: what their names have before them there."""

    def __init__(self, db: sqlite3.Connection, prefix: str = "") -> None:
        self._db, self._prefix = db, prefix

    def ledger(self) -> Ledger:
        found: dict[str, list[int]] = {}
        for app, no in self._db.execute(sql("copy/app_backed_up" if self._prefix else "copy/app_applied")):
            found.setdefault(app, []).append(no)
        return found

    def tables(self) -> list[AppTable]:
        names = [name for (name,) in self._db.execute(sql("copy/app_tables"))]
        mine = [name for name in names if name.startswith(PREFIX)] if self._prefix else names
        return [
            AppTable(name.removeprefix(self._prefix), self._columns(name))
            for name in mine
            if self._prefix or not is_kernels(name)
        ]

    def _columns(self, name: str) -> tuple[str, ...]:
        return tuple(column for (column,) in self._db.execute(sql("copy/app_columns"), (name,)))

    def rows(self, table: AppTable) -> Batches:
        statement = f"select {_columns(table)} from {_quoted(self._prefix + table.name)}"  # noqa: S608 - quoted
        return batched(self._db.execute(statement))

    def write(self, table: AppTable, batches: Batches) -> None:
        holes = ", ".join("?" * len(table.columns))
        into = f"{_quoted(self._prefix + table.name)} ({_columns(table)})"
        for batch in batches:
            self._db.executemany(f"insert into {into} values ({holes})", batch)  # noqa: S608 - quoted


class SqliteAppTarget(SqliteApp):
    """Tables that the app's migrations made in a new file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(db)
        self._triggers: list[str] = []

    def ready(self, ledger: Ledger, tables: Sequence[AppTable]) -> list[AppTable]:
        refuse_missing(self, ledger, tables)
        for name, script in self._db.execute(sql("copy/app_triggers")).fetchall():
            self._triggers.append(script)
            self._db.execute(f"drop trigger {_quoted(name)}")
        for table in tables:
            self._db.execute(f"delete from {_quoted(table.name)}")  # noqa: S608 - quoted
        return list(tables)

    def finish(self) -> None:
        for script in self._triggers:
            self._db.execute(script)
        broken = self._db.execute("pragma foreign_key_check").fetchone()
        if broken is not None:
            raise Invalid(
                f"row {broken[1]} of the app's table {broken[0]} refers to one of {broken[2]} that is not there"
            )


class SqliteAppBackup(SqliteApp):
    """Tables that hold rows of an app of another store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(db, PREFIX)

    def ready(self, ledger: Ledger, tables: Sequence[AppTable]) -> list[AppTable]:
        self._db.execute(sql("copy/create_app_migration"))
        applied = [(app, no) for app, numbers in ledger.items() for no in numbers]
        self._db.executemany(sql("copy/add_app_migration"), applied)
        for table in tables:
            self._db.execute(f"create table {_quoted(PREFIX + table.name)} ({_columns(table)})")
        return list(tables)

    def finish(self) -> None:
        """There is nothing that has to work again."""


def app_of(db: sqlite3.Connection) -> SqliteApp:
    """The app's tables of a file: its own, or those that were backed up in it."""
    backed_up = db.execute(sql("copy/has_app_migration")).fetchone() is not None
    return SqliteApp(db, PREFIX if backed_up else "")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns(table: AppTable) -> str:
    return ", ".join(map(_quoted, table.columns))

"""The app's tables of a PostgreSQL schema in a copy."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from stepwell.model.errors import Invalid
from stepwell.store.app_copying import AppTable, Ledger, refuse_missing
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.home import read_home
from stepwell.store.postgres.sql import sql as act
from stepwell.store.sums import Batches, Row, batched

#: What comes as a value of its own; everything else comes as PostgreSQL writes it.
_PLAIN = frozenset(("int2", "int4", "int8", "float4", "float8", "bool", "bytea"))


class PostgresApp:
    """The tables of an app at one moment. `db` is in a transaction."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._home = read_home(lambda text: db.execute(text.encode()).fetchall()).app

    def ledger(self) -> Ledger:
        found: dict[str, list[int]] = {}
        for app, no in self._db.execute(act("copy/app_applied")).fetchall():
            found.setdefault(app, []).append(no)
        return found

    def tables(self) -> list[AppTable]:
        return [AppTable(name, tuple(columns)) for name, columns in self._all("copy/app_tables", self._home)]

    def rows(self, table: AppTable) -> Batches:
        types: dict[str, str] = dict(self._all("copy/app_types", self._home, table.name))
        kinds = [types[name] if types[name] in _PLAIN else "text" for name in table.columns]
        statement = self._said("copy (select {columns} from {table}) to stdout", table)
        with self._db.cursor().copy(statement) as out:
            out.set_types(kinds)
            yield from batched(map(_plain(kinds), out.rows()))

    def _all(self, name: str, *values: Any) -> list[Any]:
        return self._db.execute(act(name), values).fetchall()

    def _said(self, statement: str, table: AppTable) -> sql.Composed:
        return sql.SQL(statement).format(
            table=sql.Identifier(self._home, table.name),
            columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        )


class PostgresAppTarget(PostgresApp):
    """Tables that the app's migrations made, to be filled."""

    def __init__(self, db: Db) -> None:
        super().__init__(db)
        self._ordered: list[AppTable] = []

    def ready(self, ledger: Ledger, tables: Sequence[AppTable]) -> list[AppTable]:
        refuse_missing(self, ledger, tables)
        self._ordered = in_order(tables, self._all("copy/app_references", self._home))
        for table in self._ordered:
            self._db.execute(self._said("alter table {table} disable trigger user", table))
        if tables:
            names = sql.SQL(", ").join(sql.Identifier(self._home, table.name) for table in tables)
            self._db.execute(sql.SQL("truncate {}").format(names))
        return self._ordered

    def write(self, table: AppTable, batches: Batches) -> None:
        with self._db.cursor().copy(self._said("copy {table} ({columns}) from stdin", table)) as into:
            for batch in batches:
                for row in batch:
                    _write(into, table, row)

    def finish(self) -> None:
        for table in self._ordered:
            self._db.execute(self._said("alter table {table} enable trigger user", table))
        for table, column, sequence in self._all("copy/app_sequences", self._home):
            statement = sql.SQL("select setval({}::regclass, max({})) from {} having max({}) is not null")
            name = sql.Identifier(column)
            self._db.execute(statement.format(sql.Literal(sequence), name, sql.Identifier(self._home, table), name))


def _write(into: psycopg.Copy, table: AppTable, row: Row) -> None:
    try:
        into.write_row(row)
    except (psycopg.DataError, UnicodeError) as error:
        raise Invalid(
            f"PostgreSQL cannot keep a row of the app's table {table.name}: {error}",
            hint=f"Nothing was copied. Its first value is {row[0]!r:.100}.",
        ) from error


def in_order(tables: Sequence[AppTable], references: Sequence[tuple[str, str]]) -> list[AppTable]:
    """Tables after those that they refer to, as far as that is possible. Pure."""
    wanted = {table.name: {to for name, to in references if name == table.name != to} for table in tables}
    ordered: list[AppTable] = []
    left = list(tables)
    while left:
        open_names = {table.name for table in left}
        free = [table for table in left if not wanted[table.name] & open_names] or left[:1]
        ordered += free
        left = [table for table in left if table not in free]
    return ordered


def _plain(kinds: Sequence[str]) -> Callable[[Row], Row]:
    """SQLite has no truth values."""
    truths = {place for place, kind in enumerate(kinds) if kind == "bool"}
    if not truths:
        return lambda row: row
    return lambda row: [
        int(value) if place in truths and value is not None else value for place, value in enumerate(row)
    ]

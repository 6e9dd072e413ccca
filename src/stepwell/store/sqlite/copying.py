"""A SQLite file as the source of a copy, and a new file as its target."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from stepwell.model.errors import Unavailable
from stepwell.store.app_copying import AppSource, AppTarget
from stepwell.store.copying import NUMBERED, TABLES, Kept, Prepare, Progress, nothing
from stepwell.store.sqlite.app_copying import SqliteAppBackup, SqliteAppTarget, app_of
from stepwell.store.sqlite.files import cannot, exists_error, need_file, new_file, opened, opened_alone, publish, sync
from stepwell.store.sqlite.sql import migrations, sql
from stepwell.store.sqlite.store import SqliteStore, read_ledger
from stepwell.store.sums import Batches, Row, Sum, batched, sum_of

#: The name among the sums under which the number of migrations stands.
LEDGER = "migration"


class SqliteSource:
    """A moment of a file. `db` is in a transaction that reads."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @property
    def app(self) -> AppSource:
        """The app's tables of the file."""
        return app_of(self._db)

    def rows(self, table: Kept) -> Batches:
        return batched(map(_typed(table), self._db.execute(_select(table))))

    def numbers(self) -> dict[str, int]:
        found = dict(self._db.execute("select name, seq from sqlite_sequence"))
        return {name: found.get(name, 0) for name in NUMBERED}

    def head(self) -> int:
        return int(self._db.execute(sql("find/change_span")).fetchone()[1] or 0)


@contextmanager
def reading(path: Path, *, alone: bool) -> Iterator[SqliteSource]:
    """A moment of a file. `alone`: nobody else has it open, and nobody can write to it until the context ends.

    Raises `Unknown` (no file), `Invalid` (not a database of Stepwell), `Unavailable` (in use, or of another version).
    """
    need_file(path)
    with opened_alone(path) if alone else opened(path) as db:
        _need_current(db, path)
        db.execute("begin")
        yield SqliteSource(db)


def _need_current(db: sqlite3.Connection, path: Path) -> None:
    missing = len(migrations()) - len(read_ledger(db, path))
    if missing:
        raise Unavailable(
            f"{path} is of an older Stepwell, {missing} migrations behind",
            hint=f"Bring it up to date: stepwell db migrate --db {path}",
        )


class SqliteTarget(SqliteSource):
    """A new file. `db` is in a transaction. `sums`: it is a backup of another store.

    Then it can tell whether its rows are as they were, and keeps the app's without the app's migrations.
    """

    def __init__(self, db: sqlite3.Connection, *, sums: bool) -> None:
        super().__init__(db)
        self._sums = sums
        self._app = SqliteAppBackup(db) if sums else SqliteAppTarget(db)

    @property
    def app(self) -> AppTarget:
        """The app's tables of the file."""
        return self._app

    def write(self, table: Kept, batches: Batches) -> None:
        holes = ", ".join("?" * len(table.columns))
        statement = f"insert into {table.name} ({_columns(table)}) values ({holes})"  # noqa: S608 - our own names
        for batch in batches:
            self._db.executemany(statement, batch)

    def finish(self, numbers: dict[str, int], head: int, sums: dict[str, Sum]) -> None:
        for name, number in numbers.items():
            self._db.execute("delete from sqlite_sequence where name = ?", (name,))
            self._db.execute("insert into sqlite_sequence (name, seq) values (?, ?)", (name, number))
        if self._sums:
            self._db.execute(sql("copy/create_sums"))
            found = [(name, one.rows, one.hex) for name, one in sums.items()]
            self._db.executemany(sql("copy/add_sum"), [*found, (LEDGER, len(migrations()), "")])


@contextmanager
def writing(
    path: Path, *, force: bool = False, sums: bool = False, prepare: Prepare = nothing
) -> Iterator[SqliteTarget]:
    """A file that appears, whole and on the disk, when the context ends well. Raises `Exists` without `force`.

    `prepare` makes the app's tables. `sums`: see `SqliteTarget`.
    """
    if not force and path.exists():
        raise exists_error(path)
    with new_file(path) as part:
        try:
            store = SqliteStore(part, sync="off")
            store.migrate()
            prepare(store)
            with closing(sqlite3.connect(part, isolation_level=None)) as db:
                db.execute("pragma synchronous = off")
                db.execute("begin immediate")
                yield SqliteTarget(db, sums=sums)
                db.execute("commit")
                db.execute("pragma journal_mode = delete")
        except sqlite3.Error as error:
            raise cannot("write to", path.parent, error) from error
        sync(part)
        publish(part, path, force=force)


def changed_rows(db: sqlite3.Connection, progress: Progress) -> list[str]:
    """The tables of a backup whose rows are not those that were backed up.

    A file that a server has written to since has rows of lanes, and one that was brought up to date has other columns:
    then there is nothing to compare.
    """
    if db.execute(sql("copy/has_sums")).fetchone() is None:
        return []
    known = {name: Sum(rows, int(total or "0", 16)) for name, rows, total in db.execute(sql("copy/sums"))}
    applied = known.pop(LEDGER).rows
    if applied != len(migrations()) or db.execute("select 1 from lane").fetchone():
        return []
    return [
        f"table {name}: its rows are not the {known[name].rows:,} that were backed up"
        for name, rows in _all_rows(SqliteSource(db))
        if sum_of(rows, partial(progress, "compared", name)) != known[name]
    ]


def _all_rows(source: SqliteSource) -> Iterator[tuple[str, Batches]]:
    """Every table of a backup by its name among the sums."""
    for kept in TABLES:
        yield kept.name, source.rows(kept)
    for table in source.app.tables():
        yield f"app {table.name}", source.app.rows(table)


def _columns(table: Kept) -> str:
    return ", ".join(f'"{name}"' for name in table.columns)


def _select(table: Kept) -> str:
    order = ", ".join(f'"{name}"' for name in table.key)
    return f"select {_columns(table)} from {table.name} order by {order}"  # noqa: S608 - our own names


def _typed(table: Kept) -> Callable[[Row], Row]:
    """SQLite has no truth values."""
    truths = [place for place, kind in enumerate(table.columns.values()) if kind is bool]
    if not truths:
        return lambda row: row
    return lambda row: [bool(value) if place in truths else value for place, value in enumerate(row)]

"""A PostgreSQL database as the source of a copy, and an empty one as its target.

A target is filled in one transaction. While that lasts, and after one that broke off, a row of the ledger keeps servers
out: they say so, instead of taking work into a database that is about to be something else.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
from psycopg import Copy, sql

from stepwell.model.errors import Exists, Invalid, StepwellError, Unavailable
from stepwell.store.app_copying import AppSource, AppTarget
from stepwell.store.copying import NUMBERED, TABLES, Kept, Prepare, nothing
from stepwell.store.postgres.app_copying import PostgresApp, PostgresAppTarget
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.ledger import COPYING, need_current
from stepwell.store.postgres.sql import sql as act
from stepwell.store.postgres.store import PostgresStore
from stepwell.store.postgres.text import given_text, kept_text
from stepwell.store.sums import Batches, Row, Sum, batched

_TYPES = {int: "int8", float: "float8", bool: "bool", str: "text"}
_SEQUENCES = {"run": "run_no", "event": "event_no", "message": "message_no_seq"}
IN_USE = "Stop every server, worker and command that uses it, and try again."
EMPTY = "Make a new database for it, and name that."


class PostgresSource:
    """A moment of a database. `db` is in a transaction that sees one snapshot."""

    def __init__(self, db: Db) -> None:
        self._db = db

    @property
    def app(self) -> AppSource:
        """The app's tables."""
        return PostgresApp(self._db)

    def rows(self, table: Kept) -> Batches:
        found = act("copy/changes") if table.name == "change" else "select {columns} from {table} order by {key}"
        with self._db.cursor().copy(_query(f"copy ({found}) to stdout", table)) as out:
            out.set_types([_TYPES[kind] for kind in table.columns.values()])
            yield from batched(map(_changing(table, given_text), out.rows()))

    def numbers(self) -> dict[str, int]:
        return dict(self._db.execute(act("copy/numbers")).fetchall())

    def head(self) -> int:
        return int(self._db.execute(act("copy/head")).fetchall()[0][0])


@contextmanager
def reading(store: PostgresStore, *, alone: bool) -> Iterator[PostgresSource]:
    """A moment of a database. `alone`: nobody can write to it until the context ends.

    Raises `Unavailable` (not reachable, in use, of another version) and `Invalid` (not a database of Stepwell).
    """
    with closing(store.opened()) as db, telling(store.url):
        need_current(db, store.url)
        db.execute("begin isolation level repeatable read")
        if alone:
            _hold(db, store.url)
        else:
            db.execute("set transaction read only")
        db.execute(act("copy/settings"), prepare=False)
        yield PostgresSource(db)


def _hold(db: Db, url: str) -> None:
    """Every lane raises its row first, so nothing is written to the store while this lasts."""
    try:
        db.execute(act("copy/hold"))
        lanes = db.execute(act("copy/lanes")).fetchall()
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(f"{url} is in use: somebody writes to it", hint=IN_USE) from error
    if lanes:
        raise Unavailable(f"{url} is in use: {len(lanes)} lanes are connected to it", hint=IN_USE)


class PostgresTarget(PostgresSource):
    """An empty database. `db` is in a transaction, and has locked every table."""

    def __init__(self, db: Db) -> None:
        super().__init__(db)
        self._app = PostgresAppTarget(db)

    @property
    def app(self) -> AppTarget:
        """The app's tables."""
        return self._app

    def write(self, table: Kept, batches: Batches) -> None:
        change = _changing(table, kept_text)
        with self._db.cursor().copy(_query("copy {table} ({columns}) from stdin", table)) as into:
            for batch in batches:
                for row in batch:
                    _write(into, table, change(row))

    def finish(self, numbers: dict[str, int], head: int, sums: dict[str, Sum]) -> None:
        for name in NUMBERED:
            if numbers[name]:
                self._db.execute(act("copy/set_number"), (_SEQUENCES[name], numbers[name]))
        if head:
            self._db.execute(act("copy/set_number"), ("change_no_seq", head))


def _write(into: Copy, table: Kept, row: Row) -> None:
    try:
        into.write_row(row)
    except (psycopg.DataError, UnicodeError) as error:
        place = ", ".join(str(value) for name, value in zip(table.columns, row, strict=True) if name in table.key)
        raise Invalid(
            f"PostgreSQL cannot keep the row {place!r:.200} of {table.name}: {error}",
            hint="Nothing was copied. A NUL in an id, a name or a payload that is no JSON has to go first.",
        ) from error


@contextmanager
def writing(store: PostgresStore, origin: str, prepare: Prepare = nothing) -> Iterator[PostgresTarget]:
    """A database that has all that was written when the context ends well, and nothing otherwise.

    `prepare` makes the app's tables. Raises `Exists` when it is not empty, and `Unavailable` when somebody uses it.
    """
    store.migrated(copying=True)
    prepare(store)
    with closing(store.opened()) as db, telling(store.url):
        with db.transaction():
            _lock(db, store.url, "copy/lock_ledger")
            _need_empty(db, store.url)
            db.execute(act("copy/mark"), (COPYING, origin))
        with _marked(db, store.url):
            _lock(db, store.url, "copy/lock")
            _need_empty(db, store.url)
            for name in ("lane", "meta"):
                db.execute(sql.SQL("delete from {}").format(sql.Identifier(name)))
            db.execute(act("copy/settings"), prepare=False)
            yield PostgresTarget(db)
        db.execute(act("copy/analyze"))


@contextmanager
def _marked(db: Db, url: str) -> Iterator[None]:
    """A transaction that takes away the mark which was set before.

    Who is killed leaves it, who gives up takes it back, and who finds another copy at work leaves that one's.
    """
    mine = False
    try:
        with db.transaction():
            _lock(db, url, "copy/lock_ledger")
            mine = True
            yield
            db.execute(act("copy/unmark"), (COPYING,))
    except BaseException:
        if mine and not db.closed:
            db.execute(act("copy/unmark"), (COPYING,))
        raise


def _need_empty(db: Db, url: str) -> None:
    for table in TABLES:
        if table.name != "meta" and db.execute(_query("select 1 from {table} limit 1", table)).fetchone():
            raise Exists(f"{url} is not empty: its table {table.name} has rows", hint=EMPTY)


def _lock(db: Db, url: str, which: str) -> None:
    try:
        db.execute(act(which))
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(f"{url} is in use, or is being filled by another copy", hint=IN_USE) from error


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Errors of PostgreSQL as those that callers see."""
    try:
        yield
    except psycopg.Error as error:
        raise meaning(url, error) from error


def meaning(url: str, error: psycopg.Error) -> StepwellError:
    """What an error of PostgreSQL is to whoever called: one line, and what to do."""
    text = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    hint = _HINTS.get(error.sqlstate or "", "Check that the server runs and takes connections, and try again.")
    return Unavailable(f"{url}: {text}", hint=hint)


_HINTS = {
    "42501": "Run it as the role that owns the tables.",
    "53100": "Make room on the disk of the server, and try again.",
    "57014": "The server's statement_timeout is too short for this: set it to 0 for the role that does it.",
}


def _changing(table: Kept, change: Callable[[str], str]) -> Callable[[Row], Row]:
    """What a program said is the one text that may have a NUL, and stands in another form."""
    if table.name != "output":
        return lambda row: row
    place = list(table.columns).index("text")
    return lambda row: [change(value) if at == place else value for at, value in enumerate(row)]


def _query(statement: str, table: Kept) -> sql.Composed:
    return sql.SQL(statement).format(
        table=sql.Identifier(table.name),
        columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
    )

"""The app's tables on a kernel's connection: SQLite's authorizer keeps the rest from it (source: KERNEL, mutations).

The authorizer is set once, since setting it makes SQLite prepare every statement anew; a flag says whose statement is
being prepared. Statements of the app carry a comment, so that none shares a prepared statement with the kernel's.
"""

import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from stepwell.kernel.calls import Away, Forbidden, Overdue, Result
from stepwell.store.port import Refused
from stepwell.store.sqlite.sql import migrations
from stepwell.store.sqlite.told import TOLD

Mode = Literal["kernel", "read", "write", "schema"]
MARK = "/* app */ "
#: Names that the kernel keeps for tables to come, and SQLite for itself.
RESERVED = ("stepwell_", "sqlite_", "pragma_")
#: How many steps of SQLite's machine lie between two looks at the time: about a millisecond.
STEPS = 20_000
_MADE = re.compile(r"^create (?:unique )?(?:table|index) (?:if not exists )?\"?(\w+)", re.IGNORECASE | re.MULTILINE)
_LITERAL = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_ROLLS_BACK = re.compile(r"\b(?:or\s+rollback|conflict\s+rollback|raise\s*\(\s*rollback)\b", re.IGNORECASE)
_SCHEMA_TABLES = frozenset(("sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"))
_FUNCTIONS = frozenset(("load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"))

_READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
_WRITES = frozenset((sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE))
#: What makes or drops a thing, by where its name and that of its table stand among the authorizer's arguments.
_SCHEMA: dict[int, tuple[int, ...]] = {
    sqlite3.SQLITE_CREATE_TABLE: (1,),
    sqlite3.SQLITE_CREATE_INDEX: (1, 2),
    sqlite3.SQLITE_CREATE_VIEW: (1,),
    sqlite3.SQLITE_CREATE_TRIGGER: (1, 2),
    sqlite3.SQLITE_CREATE_VTABLE: (1,),
    sqlite3.SQLITE_DROP_TABLE: (1,),
    sqlite3.SQLITE_DROP_INDEX: (1, 2),
    sqlite3.SQLITE_DROP_VIEW: (1,),
    sqlite3.SQLITE_DROP_TRIGGER: (1, 2),
    sqlite3.SQLITE_DROP_VTABLE: (1,),
    sqlite3.SQLITE_ALTER_TABLE: (2,),
    sqlite3.SQLITE_REINDEX: (1,),
}
_BEYOND = {
    sqlite3.SQLITE_TRANSACTION: "may not begin, commit or roll back: what it does commits with the step that calls it",
    sqlite3.SQLITE_SAVEPOINT: "may not use savepoints",
    sqlite3.SQLITE_PRAGMA: "may not use pragmas",
    sqlite3.SQLITE_ATTACH: "may not attach a database",
    sqlite3.SQLITE_DETACH: "may not detach a database",
    sqlite3.SQLITE_ANALYZE: "may not analyze: that looks at the kernel's tables, too",
}


@cache
def kernel_names() -> frozenset[str]:
    """Every table and index of the kernel, in lower case."""
    made = {name.lower() for _, _, script in migrations() for name in _MADE.findall(script)}
    return frozenset(made | {"migration"})


def is_kernels(name: str | None) -> bool:
    """Whether a name is the kernel's or SQLite's own, and so no app's."""
    low = (name or "").lower()
    return low in kernel_names() or low.startswith(RESERVED)


class Guarded:
    """One connection. `mode` is whose statement it prepares: the kernel's, or the app's with what it may do."""

    def __init__(self, db: sqlite3.Connection, mode: Mode) -> None:
        self._db, self._own = db, mode
        self._mode: Mode = "kernel"
        self._refused = ""
        db.set_authorizer(self._authorize)

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, sql: str, values: Sequence[Any], limit: int) -> Result:
        check_text(sql)
        self._refused, self._mode = "", self._own
        try:
            cursor = self._db.execute(MARK + sql, values)
            rows = cursor.fetchmany(limit) if cursor.description else []
            more = len(rows) == limit and cursor.fetchone() is not None
            columns = tuple(column[0] for column in cursor.description or ())
            cursor.close()
        except sqlite3.Error as error:
            raise self._meaning(error) from error
        finally:
            self._mode = "kernel"
        return Result(max(cursor.rowcount, 0), columns, rows, more)

    def _meaning(self, error: sqlite3.Error) -> Exception:
        """What the caller may handle comes as it is; the rest is a refusal, or the end of the batch."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if self._refused or code == sqlite3.SQLITE_AUTH:
            return Forbidden(self._refused or str(error))
        if code == sqlite3.SQLITE_INTERRUPT:
            return Overdue("the statement took too long")
        if self._own == "write" and not self._db.in_transaction:
            return Away(Refused(f"a statement of a mutation ended the whole transaction: {error}"))
        meant = TOLD.meaning(error)
        return error if meant is Refused else Away(meant(str(error)))

    def until(self, left_s: Callable[[], float] | None) -> None:
        over = None if left_s is None else lambda: left_s() < 0
        self._db.set_progress_handler(over, STEPS if over is not None else 0)

    def settle(self) -> None:
        """Foreign keys are not enforced here, and nothing else waits for the commit."""

    # ── savepoints ───────────────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        self._kernels("savepoint app")

    def keep(self) -> None:
        self._kernels("release app")

    def back(self) -> None:
        self._kernels("rollback to app")
        self._kernels("release app")

    def _kernels(self, sql: str) -> None:
        try:
            with TOLD:
                self._db.execute(sql)
        except Exception as error:
            raise Away(error) from error

    # ── the authorizer ───────────────────────────────────────────────────────────────────────────────────────────

    def _authorize(self, action: int, one: str | None, two: str | None, database: str | None, by: str | None) -> int:
        if self._mode == "kernel":
            return sqlite3.SQLITE_OK
        why = self._why_not(action, (None, one, two), database)
        if why is None:
            return sqlite3.SQLITE_OK
        self._refused = self._refused or why
        return sqlite3.SQLITE_DENY

    def _why_not(self, action: int, names: tuple[str | None, ...], database: str | None) -> str | None:
        """Why a statement of the app may not do this; None: it may."""
        name = names[1]
        if action in _READS:
            if action == sqlite3.SQLITE_READ and not self._may_read(name):
                return f"may not read {name}, which is the kernel's"
            if action == sqlite3.SQLITE_FUNCTION and names[2] in _FUNCTIONS:
                return f"may not call {names[2]}()"
            return None
        if action in _WRITES:
            return self._why_no_write(name, database)
        if action == sqlite3.SQLITE_PRAGMA and (name, names[2]) == ("data_version", None):
            return None  # full text search asks for it
        if action in _BEYOND:
            return _BEYOND[action]
        if self._mode != "schema":
            return "may not change the schema: write a migration for that"
        if action not in _SCHEMA:
            return "may not make or drop temporary things"
        taken = next((one for at in _SCHEMA[action] if is_kernels(one := names[at]) and not _automatic(one)), None)
        return None if taken is None else f"may not make, change or drop {taken}: that name is the kernel's"

    def _may_read(self, name: str | None) -> bool:
        bookkeeping = name in _SCHEMA_TABLES or (name == "sqlite_sequence" and self._mode == "schema")
        return bookkeeping or not is_kernels(name)

    def _why_no_write(self, name: str | None, database: str | None) -> str | None:
        if name in _SCHEMA_TABLES:
            return None  # SQLite's own bookkeeping; it refuses direct writes itself
        if self._mode == "read":
            return "may not write: a query only reads"
        if name == "sqlite_sequence" and self._mode == "schema":
            return None  # that of a table that is dropped or renamed; scripts that name it are refused by their text
        if database not in (None, "main"):
            return f"may not write {database}.{name}"
        return f"may not write {name}, which is the kernel's" if is_kernels(name) else None


def _automatic(name: str | None) -> bool:
    """What SQLite makes by itself for a unique or a counted column."""
    return name == "sqlite_sequence" or (name or "").startswith("sqlite_autoindex_")


def check_text(sql: str) -> None:
    """What the authorizer is not told of: a conflict that rolls back the transaction of everybody."""
    if "rollback" in sql.lower() and _ROLLS_BACK.search(_LITERAL.sub(" ", sql)):
        raise Forbidden("may not roll back on a conflict: use `or abort`, or raise(abort, ...) in a trigger")

"""The app's tables on a connection of the kernel's (source: KERNEL, mutations).

A statement of the app runs inside a savepoint of its own, so that one that fails undoes itself alone and the
transaction goes on, as on SQLite. With it come and go the app's search path, its role, and how long it may take, all
in one round trip; a savepoint of a mutation waits for the first statement in it.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import pq

from stepwell.kernel.calls import Away, Forbidden, Overdue, Result
from stepwell.store.port import Refused, Retry
from stepwell.store.postgres.app_rules import Mode, kernel_names, why_not
from stepwell.store.postgres.app_values import adapt
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.home import Home, read_home
from stepwell.store.postgres.sql import sql as act
from stepwell.store.postgres.tokens import tokens, with_parameters
from stepwell.store.postgres.told import TOLD

MAX_SQL_CHARS = 1_000_000
MAX_PARAMETERS = 65_535
#: Statements whose words were looked at.
KEPT = 1_000
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")
_CANCELED, _READ_ONLY, _NO_TABLE, _NOT_GRANTED = "57014", "25006", "42P01", "42501"
#: What is the server's trouble, or that of others: the batch is made again, or the server cannot write. The rest is
#: the statement's own.
_NOT_ITS_OWN = ("08", "40", "53", "57P", "58030", "XX001", "XX002", "55P03", "55006", _READ_ONLY)
_INSIDE = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class _Opened(Struct, frozen=True):
    """What is known of a connection."""

    db: Db
    home: Home
    cursor: psycopg.RawCursor[tuple[Any, ...]]


class PostgresTables:
    """`db` is the connection of the moment; `around` opens a transaction where there may be none."""

    def __init__(
        self, db: Callable[[], Db], mode: Mode, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._db, self._mode, self._around = db, mode, around
        self._now: _Opened | None = None
        self._left_s: Callable[[], float] | None = None
        self._wanted = 0  # savepoints that are not made yet

    def begin(self) -> None:
        """A new transaction has no savepoints."""
        self._wanted = 0

    def until(self, left_s: Callable[[], float] | None) -> None:
        self._left_s = left_s

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, sql: str, values: Sequence[Any], limit: int) -> Result:
        with self._around():
            opened = self._open()
            text = _statement(sql, len(values), self._mode, opened.home.kernel)
            self._do(opened, (text, values))
            return _result(opened.cursor, limit)

    def settle(self) -> None:
        if self._now is not None and self._now.home.deferred:
            names = ", ".join(self._now.home.deferred)
            self._do(
                self._open(), (f"set constraints {names} immediate", ()), (f"set constraints {names} deferred", ())
            )

    def _do(self, opened: _Opened, *given: tuple[str, Sequence[Any]]) -> None:
        error = self._sent(opened, given)
        if error is not None:
            self._undo(opened.db, error)
            raise self._meaning(error) from error
        if opened.db.info.transaction_status != pq.TransactionStatus.INTRANS:
            raise Away(Refused("a statement of a mutation ended the whole transaction"))

    def _sent(self, opened: _Opened, given: Sequence[tuple[str, Sequence[Any]]]) -> Exception | None:
        """The first error of all that goes in one round trip: those after it only say that it was broken off."""
        first: Exception | None = None
        try:
            with opened.db.pipeline():
                try:
                    self._enter(opened)
                    for text, values in given:
                        opened.cursor.execute(text, values, prepare=False)
                    _leave(opened)
                except Exception as error:
                    first = error
        except psycopg.Error as error:
            return first or error
        return first

    def _open(self) -> _Opened:
        db = self._db()
        if self._now is None or self._now.db is not db:
            cursor = psycopg.RawCursor(db)
            adapt(cursor.adapters)
            try:
                with TOLD:
                    self._now = _Opened(db, read_home(db), cursor)
            except Exception as error:
                raise Away(error) from error
        return self._now

    def _enter(self, opened: _Opened) -> None:
        db, home = opened.db, opened.home
        for _ in range(self._wanted):
            db.execute(act("app/save"), prepare=False)
        self._wanted = 0
        db.execute(act("app/save_statement"), prepare=False)
        given = (home.path, *_limits(self._left_s))
        if home.role is None:
            db.execute(act("app/enter"), given)
        else:
            db.execute(act("app/enter_as"), (*given, home.role))

    def _undo(self, db: Db, error: Exception) -> None:
        """Back to before the statement; where that cannot be, the whole transaction is over."""
        if db.info.transaction_status not in _INSIDE:
            lost = db.closed or db.info.transaction_status == pq.TransactionStatus.UNKNOWN
            what = f"{error}" if lost else f"a statement of a mutation ended the whole transaction: {error}"
            raise Away(Retry(what) if lost else Refused(what)) from error
        self._kernels("app/back_statement")

    def _meaning(self, error: Exception) -> Exception:
        """What the caller may handle comes as it is; the rest is a refusal, or the end of the batch."""
        state = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
        if state == _CANCELED:
            return Overdue("the statement took too long")
        if state == _READ_ONLY and self._mode == "read":
            return Forbidden("may not write: a query only reads")
        if state == _NOT_GRANTED:
            return Forbidden(f"may not do this: {_primary(error)}")
        if state == _NO_TABLE and (kernels := kernel_names().intersection(re.findall(r"\w+", _primary(error)))):
            return Forbidden(f"may not use {', '.join(sorted(kernels))}, which is the kernel's")
        if isinstance(error, psycopg.Error) and state.startswith(_NOT_ITS_OWN):
            return Away(TOLD.meaning(error)(_primary(error)))
        return error

    # ── savepoints ───────────────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        self._wanted += 1

    def keep(self) -> None:
        self._end("app/keep")

    def back(self) -> None:
        self._end("app/back")

    def _end(self, what: str) -> None:
        if self._wanted:
            self._wanted -= 1
        else:
            self._kernels(what)

    def _kernels(self, what: str) -> None:
        try:
            with TOLD:
                self._db().execute(act(what), prepare=False)
        except Exception as error:
            raise Away(error) from error


def _limits(left_s: Callable[[], float] | None) -> tuple[str | None, str | None]:
    """How long a statement may take, and wait for a lock of others, in ms.

    Half as long, since the wait may be for one another, and then each has to let go: the server looks for that only
    after a second.
    """
    if left_s is None:
        return None, None
    left_ms = max(round(left_s() * 1_000), 2)
    return str(left_ms), str(left_ms // 2)


def _leave(opened: _Opened) -> None:
    opened.db.execute(act("app/leave" if opened.home.role is None else "app/leave_as"))
    opened.db.execute(act("app/keep_statement"), prepare=False)


def _result(cursor: psycopg.RawCursor[tuple[Any, ...]], limit: int) -> Result:
    changed = cursor.rowcount if (cursor.statusmessage or "").startswith(_CHANGES) else 0
    if cursor.description is None:
        return Result(changed)
    columns = tuple(column.name for column in cursor.description)
    return Result(changed, columns, cursor.fetchmany(limit), cursor.rowcount > limit)


@lru_cache(KEPT)
def _statement(sql: str, given: int, mode: Mode, kernel: str) -> str:
    """The statement as PostgreSQL takes it. Raises `Forbidden`, or an error of the caller's."""
    if len(sql) > MAX_SQL_CHARS or "\0" in sql:
        raise psycopg.ProgrammingError(f"a statement has at most {MAX_SQL_CHARS:,} characters, and no NUL")
    found = tokens(sql)
    ends = next((place for place, token in enumerate(found) if token.text == ";" and token.kind == "other"), len(found))
    if len(found) > ends + 1:
        raise psycopg.ProgrammingError("You can only execute one statement at a time.")
    if any(token.kind == "parameter" and token.text.startswith("$") for token in found):
        raise psycopg.ProgrammingError("a parameter is written as ?, on every store")
    why = why_not(found, mode, kernel)
    if why is not None:
        raise Forbidden(why)
    text, wanted = with_parameters(sql, found)
    if wanted != given or given > MAX_PARAMETERS:
        what = f"the statement has {wanted} parameters, and {given} values were given; at most {MAX_PARAMETERS:,}"
        raise psycopg.ProgrammingError(what)
    return text


def _primary(error: Exception) -> str:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error).strip().partition("\n")[0]

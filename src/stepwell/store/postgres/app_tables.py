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
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.pq.abc import PGresult

from stepwell.kernel.calls import Away, Forbidden, Overdue, Result
from stepwell.store.port import Refused, Retry
from stepwell.store.postgres.app_rules import Mode, kernel_names, why_not
from stepwell.store.postgres.app_values import adapt
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.exchange import Adapted, Exchange, Statement
from stepwell.store.postgres.home import Home, read_home
from stepwell.store.postgres.sql import sql as act
from stepwell.store.postgres.tokens import tokens, with_parameters
from stepwell.store.postgres.told import TOLD

MAX_SQL_CHARS = 1_000_000
MAX_PARAMETERS = 65_535
#: How many statements that were looked at are kept, and how long they are at the most.
KEPT, MAX_KEPT_CHARS = 1_000, 10_000
#: Multiples of it lie far apart, those of neighbours most of all.
_GOLDEN = 0.618034
_CHANGES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE")
_CANCELED, _READ_ONLY, _NO_TABLE, _NOT_GRANTED, _LOCKED = "57014", "25006", "42P01", "42501", "55P03"
#: What is the server's trouble, or that of others: the batch is made again, or the server cannot write. The rest is
#: the statement's own.
_NOT_ITS_OWN = ("08", "40", "53", "57P", "58030", "XX001", "XX002", _LOCKED, "55006", _READ_ONLY)


class _Opened(Struct, frozen=True):
    """What is known of a connection, and how values of the app go over it."""

    link: Exchange
    home: Home
    connection: Db
    adapters: AdaptersMap


class PostgresTables:
    """`link` is the connection of the moment; `around` opens a transaction where there may be none."""

    def __init__(
        self, link: Callable[[], Exchange], mode: Mode, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._link, self._mode, self._around = link, mode, around
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
            look = _kept if len(sql) <= MAX_KEPT_CHARS else _statement
            text = look(sql, len(values), self._mode, opened.home.kernel)
            (result,) = self._do(opened, _adapted(opened, text, values))
            return _result(opened, result, limit)

    def settle(self) -> None:
        if self._now is not None and self._now.home.deferred:
            which = f"set constraints {', '.join(self._now.home.deferred)}"
            self._do(self._open(), Adapted(f"{which} immediate", (), (), ()), Adapted(f"{which} deferred", (), (), ()))

    def _open(self) -> _Opened:
        link = self._link()
        if self._now is None or self._now.link is not link:
            adapters = AdaptersMap(link.db.adapters)
            adapt(adapters)
            try:
                with TOLD:
                    self._now = _Opened(link, read_home(link.rows), link.db, adapters)
            except Exception as error:
                raise Away(error) from error
        return self._now

    def _do(self, opened: _Opened, *given: Adapted) -> list[PGresult]:
        """The app's own in the middle, all in one round trip."""
        before = [*[(act("app/save"), ())] * self._wanted, (act("app/save_statement"), ()), self._enter(opened)]
        leave = "app/leave" if opened.home.role is None else "app/leave_as"
        self._wanted = 0
        try:
            answers = opened.link.all(*before, *given, (act(leave), ()), (act("app/keep_statement"), ()))
        except psycopg.Error as error:
            self._undo(opened.link, error)
            raise self._meaning(error, given) from error
        if opened.link.db.info.transaction_status != pq.TransactionStatus.INTRANS:
            raise Away(Refused("a statement of a mutation ended the whole transaction"))
        return [answer.result for answer in answers[len(before) : -2]]

    def _enter(self, opened: _Opened) -> Statement:
        home, pid = opened.home, opened.connection.info.backend_pid
        given = (home.path, *_limits(self._left_s, pid))
        if home.role is None:
            return act("app/enter"), given
        return act("app/enter_as"), (*given, home.role)

    def _undo(self, link: Exchange, error: Exception) -> None:
        """Back to before the statement; where that cannot be, the whole transaction is over."""
        if link.db.closed:
            raise Away(Retry(_primary(error))) from error
        if link.db.info.transaction_status != pq.TransactionStatus.INERROR:
            raise Away(Refused(f"a statement of a mutation ended the whole transaction: {error}")) from error
        self._kernels("app/back_statement", "app/keep_statement")

    def _meaning(self, error: psycopg.Error, given: Sequence[Adapted]) -> Exception:
        """What the caller may handle comes as it is; the rest is a refusal, or the end of the batch."""
        state = error.sqlstate or ""
        if state == _CANCELED:
            return Overdue("the statement took too long")
        if state == _READ_ONLY and self._mode == "read":
            return Forbidden("may not write: a query only reads")
        if state == _NOT_GRANTED:
            return Forbidden(f"may not do this: {_primary(error)}")
        if state == _NO_TABLE and (kernels := kernel_names().intersection(re.findall(r"\w+", _primary(error)))):
            return Forbidden(f"may not use {', '.join(sorted(kernels))}, which is the kernel's")
        asked = state == _LOCKED and any("nowait" in one.text.lower() for one in given)
        if state.startswith(_NOT_ITS_OWN) and not asked:
            return Away(TOLD.meaning(error)(_primary(error)))
        return error

    # ── savepoints ───────────────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        self._wanted += 1

    def keep(self) -> None:
        self._end("app/keep")

    def back(self) -> None:
        self._end("app/back", "app/keep")

    def _end(self, *acts: str) -> None:
        if self._wanted:
            self._wanted -= 1
        else:
            self._kernels(*acts)

    def _kernels(self, *acts: str) -> None:
        try:
            with TOLD:
                self._link().all(*((act(one), ()) for one in acts))
        except Exception as error:
            raise Away(error) from error


def _limits(left_s: Callable[[], float] | None, pid: int) -> tuple[str | None, str | None]:
    """How long a statement may take, and how long it may wait for a lock of others, in ms.

    From a quarter to a half as long, for each connection another part: two that wait for each other would else let go,
    and come back, at the same time. The server looks for that only after a second.
    """
    if left_s is None:
        return None, None
    left_ms = max(left_s() * 1_000, 4)
    return str(round(left_ms)), str(round(left_ms * (1 + pid * _GOLDEN % 1) / 4))


def _adapted(opened: _Opened, text: str, values: Sequence[Any]) -> Adapted:
    transformer = Transformer(opened)
    given = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return Adapted(text, given, transformer.types or (), transformer.formats or ())


def _result(opened: _Opened, result: PGresult, limit: int) -> Result:
    word = result.command_status or b""
    changed = result.command_tuples or 0 if word.startswith(_CHANGES) else 0
    if result.status != pq.ExecStatus.TUPLES_OK:
        return Result(changed)
    columns = tuple((result.fname(place) or b"").decode() for place in range(result.nfields))
    transformer = Transformer(opened)
    transformer.set_pgresult(result)
    rows = transformer.load_rows(0, min(limit, result.ntuples), tuple)
    return Result(changed, columns, rows, result.ntuples > limit)


def _statement(sql: str, given: int, mode: Mode, kernel: str) -> str:
    """The statement as PostgreSQL takes it. Raises `Forbidden`, or an error of the caller's."""
    if len(sql) > MAX_SQL_CHARS or "\0" in sql:
        raise psycopg.ProgrammingError(f"a statement has at most {MAX_SQL_CHARS:,} characters, and no NUL")
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise psycopg.ProgrammingError(f"a statement is valid Unicode: {error}") from None
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


_kept = lru_cache(KEPT)(_statement)


def _primary(error: Exception) -> str:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error).strip().partition("\n")[0]

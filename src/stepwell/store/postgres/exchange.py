"""Statements to the server, several in one round trip, with one wait for all of them (source: libpq, pipeline mode).

A driver that waits once for each statement gives the interpreter's lock away as often, and wins it back from a busy
event loop only after a turn of that; with a lane beside a loop these turns were most of a commit's time.
"""

import select
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.sql import Anew, sql

Rows: TypeAlias = list[tuple[Any, ...]]
Statement: TypeAlias = tuple[str, Sequence[Any]]
#: How long a wait is: under TLS the rest of a record may be in the library while nothing is in the socket.
LOOK_MS = 1_000
#: How many prepared statements a connection has at the most.
KEPT = 500
_TOLD = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
_LOST = "the connection to the server is lost"


class Adapted(NamedTuple):
    """A statement whose values are adapted already. It is not prepared, and whoever sends it loads its rows."""

    text: str
    values: Sequence[Buffer | None]
    types: tuple[int, ...]
    formats: Sequence[Format]


class Answer(NamedTuple):
    """Of one statement: its rows, and the word with which the server says what it did."""

    rows: Rows
    word: str
    result: PGresult


class Exchange:
    """All that a session says on its connection; each statement is prepared when it first goes there.

    The driver prepares nothing on it from now on: it would forget all at each rollback, in the server too.
    `keeps_plans`: of all but what is to be planned anew; planning takes longer than most statements.
    """

    def __init__(self, db: Db, *, keeps_plans: bool = False) -> None:
        self.db = db
        self._prepares = db.prepare_threshold is not None
        db.prepare_threshold = None
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._given = 0
        self._given_as, self._loaded_as = Transformer(db), Transformer(db)  # each knows the types that it met
        self._poll = select.poll()
        self._poll.register(db.fileno(), select.POLLIN)
        self._keeps_plans = keeps_plans and self._prepares
        if self._keeps_plans:
            self._all((sql("plan/keep"), ()))

    def rows(self, text: str, values: Sequence[Any] = ()) -> Rows:
        """The rows of one statement."""
        return self.all((text, values))[0].rows

    def all(self, *statements: Statement | Adapted) -> list[Answer]:
        """What came of each. Raises the first error, after which the server did none of the rest.

        A connection on which not all was answered is closed.
        """
        if self._keeps_plans and any(isinstance(one, Adapted) or isinstance(one[0], Anew) for one in statements):
            return self._all((sql("plan/anew"), ()), *statements, (sql("plan/as_before"), ()))[1:-1]
        return self._all(*statements)

    def _all(self, *statements: Statement | Adapted) -> list[Answer]:
        connection = self.db.pgconn
        if connection.status != ConnStatus.OK:
            raise psycopg.OperationalError(_LOST)
        self._bound()
        connection.enter_pipeline_mode()
        try:
            new = [self._send(one) for one in statements]
            connection.pipeline_sync()
            self._pass_on()
            results = self._results()
            connection.exit_pipeline_mode()
        except BaseException:
            self.db.close()
            raise
        return self._answers(results, statements, new)

    def _bound(self) -> None:
        """A flush is a statement for each set of tables that it writes, and the server keeps what is prepared."""
        if len(self._names) >= KEPT:
            done = self.db.pgconn.exec_(b"deallocate all")
            if done.status == ExecStatus.COMMAND_OK:
                self._names.clear()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, statement: Statement | Adapted) -> tuple[tuple[str, tuple[int, ...]], bytes] | None:
        """What was prepared for it, if that is new."""
        connection, adapted = self.db.pgconn, self._given_as
        if isinstance(statement, Adapted):
            connection.send_query_params(statement.text.encode(), statement.values, statement.types, statement.formats)
            return None
        text, values = statement
        given = adapted.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = adapted.types or (), adapted.formats
        if not self._prepares:
            connection.send_query_params(text.encode(), given, types, formats)
            return None
        key, new = (text, types), None
        name = self._names.get(key)
        if name is None:
            self._given += 1
            name = b"stepwell_%d" % self._given
            connection.send_prepare(name, text.encode(), types)
            new = (key, name)
        connection.send_query_prepared(name, given, formats)
        return new

    def _pass_on(self) -> None:
        """Sends what is left to send, and takes what comes meanwhile: a server that cannot answer does not listen."""
        connection = self.db.pgconn
        while connection.flush():
            self._wait(select.POLLIN | select.POLLOUT)
            connection.consume_input()

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────

    def _results(self) -> list[PGresult]:
        """All until the server has told everything."""
        connection, results = self.db.pgconn, list[PGresult]()
        while True:
            while connection.is_busy():
                self._wait(select.POLLIN)
                connection.consume_input()
            result = connection.get_result()
            if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                return results
            if result is not None:
                results.append(result)
            if connection.status != ConnStatus.OK:
                raise _error(result) if result is not None else psycopg.OperationalError(_LOST)

    def _wait(self, events: int) -> None:
        self._poll.modify(self.db.fileno(), events)
        self._poll.poll(LOOK_MS)

    def _answers(
        self, results: list[PGresult], statements: Sequence[Statement | Adapted], new: list[Any]
    ) -> list[Answer]:
        answers, left = [], iter(results)
        for statement, prepared in zip(statements, new, strict=True):
            if prepared is not None:
                key, name = prepared
                _good(next(left))
                self._names[key] = name
            answers.append(self._answer(_good(next(left)), loads=not isinstance(statement, Adapted)))
        return answers

    def _answer(self, result: PGresult, *, loads: bool) -> Answer:
        word = (result.command_status or b"").decode()
        if result.status != ExecStatus.TUPLES_OK or not loads:
            return Answer([], word, result)
        self._loaded_as.set_pgresult(result)
        return Answer(self._loaded_as.load_rows(0, result.ntuples, tuple), word, result)


def _good(result: PGresult) -> PGresult:
    """The first that is not is the error; those after it only say that it was broken off."""
    if result.status in _TOLD:
        raise _error(result)
    return result


def _error(result: PGresult) -> psycopg.Error:
    return error_from_result(result)

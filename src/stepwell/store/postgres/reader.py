"""A reading connection to a PostgreSQL server. Payloads come resolved."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import msgspec
import psycopg

from stepwell.kernel.calls import AppTables
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.rows import Event, Output, Run
from stepwell.store.port import RunFilter
from stepwell.store.postgres.app_tables import PostgresTables
from stepwell.store.postgres.connection import Connect
from stepwell.store.postgres.exchange import Exchange
from stepwell.store.postgres.sql import sql
from stepwell.store.postgres.text import given_text, storable
from stepwell.store.postgres.told import said_by
from stepwell.store.reading import LAST, SqlReader

UNREADABLE_HINT = "Check that the server runs and takes connections; nothing that was answered is lost."
#: jsonb takes no NUL, so another character stands for it on both sides; the rows that come are compared exactly.
_TAGGED = r"replace(tags, '\u0000', '\u0001')::jsonb @> replace($, '\u0000', '\u0001')::jsonb"
_json = msgspec.json.Encoder().encode


class PostgresReader(SqlReader):
    """Each method reads what is committed when it is called. Errors of the server come as `Unavailable`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._link = Exchange(connect())
        self._inside = False  # of a snapshot
        self.app: AppTables = PostgresTables(lambda: self._link, "read", self._around)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._execute("begin isolation level repeatable read read only", ())
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            if not self._link.db.closed:
                self._execute("rollback", ())

    def _around(self) -> AbstractContextManager[None]:
        """A snapshot, unless there is one."""
        return nullcontext() if self._inside else self.snapshot()

    def _execute(self, statement: str, values: Any) -> list[Any]:
        try:
            return self._fetched(statement, values)
        except (psycopg.DataError, UnicodeEncodeError) as error:
            hint = "Leave out NUL, halves of surrogate pairs, and numbers past 63 bits."
            raise Invalid(f"nothing in the store can have such a value: {error}", hint=hint) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable(f"the store cannot be read: {said_by(error)}", hint=UNREADABLE_HINT) from error

    def _fetched(self, statement: str, values: Any) -> list[Any]:
        """What the server answers; if the connection turns out to be cut, what it answers on a new one."""
        fresh = self._link.db.closed and not self._inside
        if fresh:
            self._link = Exchange(self._connect())
        try:
            return self._link.rows(statement, values)
        except psycopg.OperationalError:
            if fresh or self._inside or not self._link.db.closed:
                raise
            return self._fetched(statement, values)

    def _each(self, act: str, *values: Any) -> list[Any]:
        return self._execute(sql(act), values)

    def _many(self, values: Collection[Any]) -> list[Any]:
        return list(values)

    def _listed(self, where: RunFilter, before: int | None, limit: int, floor: int) -> list[Run]:
        statement, values = runs_statement(where, before, limit, floor)
        return [Run(*row) for row in self._execute(statement, values)]

    def run(self, scope: str, run_id: str) -> Run | None:
        return super().run(scope, run_id) if storable(run_id) else None

    def event(self, scope: str, event_id: str) -> Event | None:
        return super().event(scope, event_id) if storable(event_id) else None

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        rows = super().output(run_no, after=after, limit=limit)
        for row in rows:
            row.text = given_text(row.text)
        return rows

    def close(self) -> None:
        self._link.db.close()


def runs_statement(where: RunFilter, before: int | None, limit: int, floor: int = 0) -> tuple[str, list[Any]]:
    """The list of runs from number `floor` on, newest first, with its values."""
    values: list[Any] = [limit]

    def value(given: Any) -> str:
        values.append(given)
        return f"${len(values)}"

    tests = [f"scope = {value(where.scope)}", f"no < {value(LAST if before is None else before)}"]
    for name in ("status", "result_status", "name", "event_no", "hold"):
        wanted = getattr(where, name)
        if wanted is not None:
            tests.append(f"{name} = {value(wanted)}")
    if where.status in ("queued", "running", "sleeping", "waiting"):
        tests.append("ended_at is null")
    if where.status in ("failed", "canceled"):
        tests.append("bad")
    if where.attention:
        tests.append("(hold <> 'paused' or result_status in ('needs_intervention', 'blocked', 'failed'))")
    if floor:
        tests.append(f"no >= {value(floor)}")
    if where.tags:
        tests.append(_TAGGED.replace("$", value(_json(dict(where.tags)).decode())))
    return sql("list/runs").replace("/* tests */", " and ".join(tests)), values

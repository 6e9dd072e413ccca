"""A reading connection to a SQLite file. Payloads come resolved."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from stepwell.kernel.calls import AppTables
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Pool, Run
from stepwell.store.port import RunFilter
from stepwell.store.reading import LAST, SqlReader
from stepwell.store.sqlite.guarded import Guarded
from stepwell.store.sqlite.sql import sql

_UNREADABLE = frozenset((
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB,
))  # fmt: skip
_UNREADABLE_HINT = (
    "Check the disk; `stepwell db verify` tells what is damaged, `stepwell db restore` brings a backup in."
)
_json = msgspec.json.Encoder().encode


def pool_of(row: Sequence[Any]) -> Pool:
    """A pool, whose last column is a truth value that SQLite keeps as a number."""
    pool = Pool(*row)
    pool.paused = bool(pool.paused)
    return pool


class SqliteReader(SqlReader):
    """Each method is one read transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._app: Guarded | None = None
        db.execute("pragma query_only = on")

    @property
    def app(self) -> AppTables:
        if self._app is None:
            self._app = Guarded(self._db, "read")
        return self._app

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Raises `Unavailable` for a file that cannot be read now: that is no bug, and may pass."""
        try:
            self._db.execute("begin")
            try:
                yield
            finally:
                self._db.execute("rollback")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF not in _UNREADABLE:
                raise
            raise Unavailable(f"the store cannot be read: {error}", hint=_UNREADABLE_HINT) from error

    def _each(self, act: str, *values: Any) -> Iterator[Any]:
        return self._db.execute(sql(act), values)

    def _many(self, values: Collection[Any]) -> str:
        return _json(list(values)).decode()

    def _listed(self, where: RunFilter, before: int | None, limit: int, floor: int) -> list[Run]:
        return [Run(*row) for row in self._db.execute(*runs_statement(where, before, limit, floor))]

    def pools(self, scope: str) -> list[Pool]:
        return [pool_of(row) for row in self._each("list/pools", scope)]

    def close(self) -> None:
        self._db.close()


def runs_statement(where: RunFilter, before: int | None, limit: int, floor: int = 0) -> tuple[str, dict[str, Any]]:
    """The list of runs from number `floor` on, newest first, by the index that fits the filter."""
    # The plus keeps the planner from the index on (scope, id), which would read and sort every run of the scope.
    tests = ["+scope = :scope", "no < :before"]
    values: dict[str, Any] = {"scope": where.scope, "before": LAST if before is None else before, "limit": limit}
    for name in ("status", "result_status", "name", "event_no", "hold"):
        value = getattr(where, name)
        if value is not None:
            tests.append(f"{name} = :{name}")
            values[name] = value
    if where.event_no is not None:
        tests.append("event_no is not null")
    if where.status in ("queued", "running", "sleeping", "waiting"):
        tests.append("ended_at is null")
    if where.status in ("failed", "canceled"):
        tests.append("status in ('failed', 'canceled')")
    if where.hold is not None:
        tests.append("hold is not null")
    if where.attention:
        tests.append("(hold <> 'paused' or result_status in ('needs_intervention', 'blocked', 'failed'))")
    if floor:
        tests.append("no >= :floor")
        values["floor"] = floor
    values["tags"] = _json(dict(where.tags)).decode() if where.tags else None
    return sql("list/runs").replace("/* tests */", " and ".join(tests)), values

"""Sessions of several lanes, and transactions that stay open until a test ends them."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

from stepwell.kernel.unit import Unit
from stepwell.model.settings import Settings
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.store import PostgresStore
from tests.support.postgres import ask

from ..filling import NOW, put

#: Opens a session by the name of its lane; all are closed after the test.
Sessions: TypeAlias = Callable[[str], PostgresSession]


def flushed(session: PostgresSession, *rows: Any) -> None:
    """A transaction with these rows, not committed yet."""
    session.begin()
    unit = Unit(Settings())
    put(unit, *rows)
    session.flush(unit, NOW)


def until_it_waits(store: PostgresStore, answer: Future[Any]) -> None:
    """Until the server says that somebody waits for a lock, which is whoever owes this answer."""
    while ask(store, "select count(*) from pg_locks where not granted") == [(0,)]:
        assert not answer.done()

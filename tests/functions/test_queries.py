"""Queries: one snapshot, read only, under the same guard."""

import sqlite3
from collections.abc import Iterator
from time import sleep
from types import FunctionType
from typing import Any

import msgspec
import pytest

from stepwell.functions import waits
from stepwell.functions.contexts import QueryContext
from stepwell.functions.define import Query
from stepwell.functions.errors import StepError
from stepwell.functions.queries import AppQueries
from stepwell.model import errors
from tests.functions import shop as bad
from tests.functions.shop import IO, STATEMENTS, Counter
from tests.support import LITE


@pytest.fixture
def queries(counter: Counter) -> Iterator[AppQueries]:
    queries = AppQueries(counter.shop.registry, settings=counter.bench.settings)
    yield queries
    queries.close()


def ask(counter: Counter, queries: AppQueries, path: str, args: str = "{}") -> Any:
    with counter.bench.reader() as reader, reader.snapshot():
        return msgspec.json.decode(queries.call(reader, path, args))


def define(counter: Counter, body: Any) -> str:
    def query(ctx: QueryContext) -> Any:
        return body(ctx)

    query.__annotations__["return"] = Any
    made: Query[Any, Any] = Query("shop", query)
    counter.shop.registry.register(made)
    return made.path


def test_a_query_reads_what_was_committed(counter: Counter, queries: AppQueries) -> None:
    assert ask(counter, queries, "shop:amounts") == []
    counter.invoke("shop:pay", '{"order_id":"a","amount":3}')
    assert ask(counter, queries, "shop:amounts") == [3]
    for wrong in ("shop:pay", "shop:gone"):
        with pytest.raises(errors.UnknownFunction):
            ask(counter, queries, wrong)


WRITES = {
    "insert": "insert into receipt values ('x', 1)",
    "update": "update receipt set amount = 2",
    "x": "delete from audit",
}


@pytest.mark.parametrize("counter", LITE, indirect=True)
@pytest.mark.parametrize(
    "sql", [*STATEMENTS.values(), *WRITES.values()], ids=[*STATEMENTS, *(f"write {one}" for one in WRITES)]
)
def test_a_query_only_reads(counter: Counter, queries: AppQueries, sql: str) -> None:
    with pytest.raises(StepError) as refused:
        ask(counter, queries, define(counter, lambda ctx: ctx.db.all(sql)))
    assert refused.value.type == "NotAllowed"
    assert ask(counter, queries, "shop:amounts") == []


@pytest.mark.parametrize("body", [*IO, bad.spins, bad.spins_in_sql], ids=lambda one: one.__name__)
def test_a_query_does_no_io_and_takes_no_time(counter: Counter, queries: AppQueries, body: Any) -> None:
    with pytest.raises(StepError) as refused:
        ask(counter, queries, define(counter, body))
    assert refused.value.type == ("Timeout" if body in (bad.spins, bad.spins_in_sql) else "NotAllowed")
    assert ask(counter, queries, "shop:amounts") == []


def test_a_query_does_not_sleep_by_a_name_from_before(counter: Counter, queries: AppQueries) -> None:
    """Also in an app without mutations."""

    def naps(ctx: QueryContext) -> None:
        sleep(1)

    alone = FunctionType(naps.__code__, {"sleep": waits.kept()._sleep}, "naps")
    alone.__annotations__ = naps.__annotations__
    made: Query[Any, Any] = Query("alone", alone)
    counter.shop.registry.register(made)
    with pytest.raises(StepError, match="may not do I/O or wait"):
        ask(counter, queries, made.path)


def busy() -> sqlite3.Error:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def test_what_a_query_raises_is_not_taken_for_the_stores_trouble(counter: Counter, queries: AppQueries) -> None:
    own: list[BaseException] = [errors.Unavailable("x"), errors.UnknownFunction("x"), busy(), SystemExit("x")]

    def raises(ctx: QueryContext) -> None:
        raise own[-1]

    path = define(counter, raises)
    while own:
        with pytest.raises(StepError) as failed:
            ask(counter, queries, path)
        assert failed.value.type == type(own.pop()).__name__
        assert "raises" in failed.value.traceback

"""Queries: one snapshot, read only, under the same guard."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from stepwell.functions.contexts import QueryContext
from stepwell.functions.define import Query
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
    with pytest.raises(errors.StepwellError) as refused:
        ask(counter, queries, define(counter, lambda ctx: ctx.db.all(sql)))
    assert refused.value.code == "not_allowed"
    assert ask(counter, queries, "shop:amounts") == []


@pytest.mark.parametrize("body", [*IO, bad.spins, bad.spins_in_sql], ids=lambda one: one.__name__)
def test_a_query_does_no_io_and_takes_no_time(counter: Counter, queries: AppQueries, body: Any) -> None:
    with pytest.raises((errors.Timeout, errors.StepwellError)) as refused:
        ask(counter, queries, define(counter, body))
    assert refused.value.code in ("timeout", "not_allowed")
    assert ask(counter, queries, "shop:amounts") == []

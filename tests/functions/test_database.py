"""What SQL of a mutation may do, and that the rest is refused, rolled back, and costs nobody else anything."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from stepwell.functions.contexts import MutationContext
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.store.postgres import app_rules
from stepwell.store.sqlite import guarded
from tests.functions.shop import STATEMENTS, Counter, Shop
from tests.support import LITE, snapshot


def failure(counter: Counter, function: str, args: str = "{}") -> dict[str, Any]:
    refusal = counter.bench.refused(c.Invoke(function, args), errors.MutationFailed)
    failed: dict[str, Any] = msgspec.json.decode(refusal.fields["failure"])
    return failed


@pytest.mark.parametrize("counter", LITE, indirect=True)
@pytest.mark.parametrize("catches", [False, True], ids=["raises", "goes on"])
@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_that_is_not_the_apps_business_is_refused(counter: Counter, sql: str, catches: bool) -> None:
    def body(ctx: MutationContext) -> None:
        try:
            ctx.db.all(sql)
        except Exception:
            if not catches:
                raise

    counter.bench.start("bystander")
    before = snapshot(counter.store)
    path = counter.shop.bad(body)
    assert failure(counter, path)["type"] == "NotAllowed"
    assert counter.rows() == []
    assert snapshot(counter.store) == before
    assert counter.invoke("shop:pay", '{"order_id":"good"}') == 1
    assert counter.rows() == [("good", 1)]


@pytest.mark.parametrize("sql", ["insert into receipt values ('a', 1); delete from receipt", "select 1; select 2"])
def test_a_script_is_refused(counter: Counter, sql: str) -> None:
    path = counter.shop.bad(lambda ctx: ctx.db.execute(sql))
    assert "one statement" in failure(counter, path)["message"]
    assert counter.rows() == []


def reading(name: str) -> Callable[[MutationContext], Any]:
    return lambda ctx: ctx.db.all(f'select * from "{name}"')


def test_the_guard_knows_every_table_of_the_kernel(counter: Counter) -> None:
    names = (app_rules if counter.store.dialect == "postgres" else guarded).kernel_names()
    for name in sorted(names):
        path = counter.shop.bad(reading(name), f"read {name}")
        assert failure(counter, path)["type"] in ("NotAllowed", "OperationalError"), name  # an index is no table
    assert {"run", "entry", "task", "message", "migration", "app_migration", "lane", "meta"} <= names


class Receipt(Struct):
    order_id: str
    amount: int


def test_rows_come_as_dicts_as_one_column_or_as_a_struct(counter: Counter) -> None:
    def body(ctx: MutationContext) -> list[Any]:
        rows: list[Any] = [
            ctx.db.execute("insert into receipt values ('x', 7), ('y', 8)"),
            ctx.db.execute("update receipt set amount = amount where order_id <> 'bad'"),
            ctx.db.all("select * from receipt where order_id = ?", "x"),
            ctx.db.all("select amount from receipt where order_id in ('x', 'y') order by 1", type=int),
            [one.amount for one in ctx.db.all("select * from receipt where order_id = 'x'", type=Receipt)],
            ctx.db.all("insert into told (note) values ('n') returning note", type=str),
            ctx.db.all("select note from notes", type=str),
        ]
        return rows

    answer = counter.invoke(counter.shop.bad(body))
    assert answer == [2, 2, [{"order_id": "x", "amount": 7}], [7, 8], [7], ["n"], ["n"]]


@pytest.mark.parametrize("counter", LITE, indirect=True)
def test_functions_of_tables_are_no_tables(counter: Counter) -> None:
    path = counter.shop.bad(lambda ctx: ctx.db.all("select value from json_each('[1, 2]')", type=int))
    assert counter.invoke(path) == [1, 2]


@pytest.mark.parametrize(
    "value",
    [datetime(2026, 1, 1, tzinfo=UTC), {"a": 1}, [1], 1 << 64, "\ud800"],
    ids=["date", "dict", "list", "big", "text"],
)
def test_a_parameter_that_no_column_can_hold_is_named(counter: Counter, value: Any) -> None:
    path = counter.shop.bad(lambda ctx: ctx.db.execute("insert into audit (note) values (?)", value))
    assert "parameter 1" in failure(counter, path)["message"]


def test_rows_that_do_not_fit_are_an_error_that_can_be_caught(counter: Counter) -> None:
    def body(ctx: MutationContext) -> int:
        for sql, wanted in (("select 'x'", int), ("select 1, 2", int), ("select 1 as a, 2 as a", None)):
            with pytest.raises(errors.Invalid):
                ctx.db.all(sql, type=wanted) if wanted else ctx.db.all(sql)
        return 1

    assert counter.invoke(counter.shop.bad(body)) == 1


def test_a_broken_constraint_can_be_caught_and_undoes_its_statement_alone(counter: Counter) -> None:
    def body(ctx: MutationContext) -> str:
        try:
            ctx.db.execute("insert into receipt values ('new', 1), ('bad', 2)")
        except Exception as error:
            return type(error).__name__
        return ""

    broken = {"sqlite": "IntegrityError", "postgres": "UniqueViolation"}
    assert counter.invoke(counter.shop.bad(body)) == broken[counter.store.dialect]
    assert counter.rows() == [("bad", 1)]


def test_a_database_is_good_for_its_call_alone(counter: Counter, shop: Shop) -> None:
    kept: list[MutationContext] = []
    counter.invoke(shop.bad(lambda ctx: kept.append(ctx)))
    with pytest.raises(errors.StepwellError, match="another call"):
        kept[0].db.execute("delete from receipt")
    with pytest.raises(errors.StepwellError, match="another call"):
        kept[0].cancel("r")

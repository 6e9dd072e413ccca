"""What SQL of a mutation may not do on PostgreSQL, where no authorizer helps, and what makes it PostgreSQL's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.functions.contexts import MutationContext, QueryContext
from stepwell.functions.define import Query
from stepwell.functions.errors import StepError
from stepwell.functions.queries import AppQueries
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.store.postgres.app_rules import is_kernels
from stepwell.store.postgres.tokens import statements, tokens, with_parameters
from tests.functions.shop import Counter, Shop, opened
from tests.support import assert_lawful, snapshot
from tests.support.postgres import ask, schema

#: KERNEL stands for the kernel's schema.
STATEMENTS = (
    "begin",
    "START TRANSACTION",
    "commit",
    "/* x */ CoMmit -- now",
    "end",
    "rollback",
    "abort",
    "rollback to savepoint app",
    "savepoint x",
    "release savepoint app_statement",
    "prepare transaction 'x'",
    "prepare x as select 1",
    "execute x",
    "deallocate all",
    "set role none",
    "set local search_path = KERNEL",
    "reset all",
    "discard all",
    "show all",
    "copy receipt to stdout",
    "copy receipt from program 'x'",
    "listen x",
    "unlisten *",
    "notify x",
    "lock table receipt",
    "vacuum",
    "analyze",
    "checkpoint",
    "load 'x'",
    "do 'begin end'",
    "call x()",
    "declare x cursor for select 1",
    "fetch x",
    "explain analyze delete from receipt",
    "create table mine (a integer)",
    "create temp table mine (a integer)",
    "drop table receipt",
    "alter table receipt add column x integer",
    "truncate receipt",
    "grant all on receipt to public",
    "select 1 as a into mine",
    "with x as (select 1 as a) select a into temp mine from x",
    "select id from run",
    "table run",
    "select exists (select 1 from entry)",
    'select * from "run"',
    "select * from KERNEL.run",
    "select * from KERNEL . run",
    'select * from "KERNEL"."run"',
    'select * from U&"KERNEL"."run"',
    "select * from KERNEL /* x */ . /* y */ run",
    "select KERNEL.run.id from KERNEL.run",
    "SELECT * FROM KERNEL.RUN",
    "with x as (delete from KERNEL.run returning 1) select * from x",
    "insert into audit (note) select id from run",
    "insert into audit (note) values ('spy')",
    "insert into meta values ('x', 1)",
    "update KERNEL.run set status = 'completed'",
    "delete from message",
    "delete from KERNEL.task",
    "merge into KERNEL.meta using receipt on true when matched then delete",
    "select 'KERNEL.run'::regclass",
    "select nextval('KERNEL.run_no')",
    "select setval('told_id_seq', 1)",
    "select set_config('search_path', 'KERNEL', true)",
    "select pg_catalog.\"set_config\"('role', 'none', true)",
    "select pg_advisory_lock(1)",
    "select pg_sleep(9)",
    "select pg_terminate_backend(1)",
    "select pg_notify('x', 'y')",
    "select pg_read_file('x')",
    "select * from pg_stat_activity",
    "update pg_catalog.pg_class set relname = 'x'",
    "select query_to_xml('select * from KERNEL.run', true, true, '')",
    "select table_to_xml('x', true, true, '')",
    "select * from dblink('x', 'y') as t(a integer)",
    "select lo_import('x')",
    "select lo_unlink(1)",
    "select ts_stat('select 1')",
)


@pytest.fixture
def counter(tmp_path: Path, shop: Shop) -> Iterator[Counter]:
    with opened("postgres", tmp_path, shop) as counter:
        yield counter
        assert_lawful(counter.store, counter.bench.settings)


def told(counter: Counter, path: str) -> Any:
    """What a mutation that does its work answers."""
    (reply,) = counter.bench.all(c.Invoke(path))
    assert isinstance(reply, c.Invoked), reply.fields
    return msgspec.json.decode(reply.result)


def failure(counter: Counter, path: str) -> dict[str, Any]:
    refusal = counter.bench.refused(c.Invoke(path), errors.MutationFailed)
    failed: dict[str, Any] = msgspec.json.decode(refusal.fields["failure"])
    return failed


def test_a_statement_that_is_not_the_apps_business_is_refused(counter: Counter) -> None:
    """Whether the function goes on or not: nothing of it stays, and the next one is none the worse."""
    said: dict[str, Any] = {}

    def body(ctx: MutationContext) -> None:
        try:
            ctx.db.all(said["sql"])
        except Exception:
            if not said["catches"]:
                raise

    path, kernel = counter.shop.bad(body), schema(counter.store)
    counter.bench.start("bystander")
    before = snapshot(counter.store)
    for number, sql in enumerate(STATEMENTS):
        for catches in (False, True)[: 1 + (number % 5 == 0)]:
            said.update(sql=sql.replace("KERNEL", kernel), catches=catches)
            assert failure(counter, path)["type"] == "NotAllowed", sql
            assert counter.rows() == [], sql
    assert snapshot(counter.store) == before
    assert counter.invoke("shop:pay", '{"order_id":"good"}') == 1
    assert counter.rows() == [("good", 1)]


ALLOWED = (
    "select 'commit; KERNEL.run' as a",
    "select $$commit; KERNEL.run$$ as a",
    'select 1 as "commit" -- ; commit',
    "(select 1 as a) union (select 2) order by a;",
    "values (1)",
    "table receipt",
    "select order_id as run, amount as task from receipt",
    "select e'it''s \\' KERNEL.run' as a",
    "insert into receipt (order_id, amount) select 'x', 1 where false",
    "with gone as (delete from audit returning note) select * from gone",
    "select amount from receipt for update",
    "select pg_typeof(1)::text as a",
    "select count(*) as a from information_schema.tables where table_name = 'receipt'",
    "select r.amount from receipt as r where exists (select 1 from audit)",
    "select pg_catalog.now() as a",
    "select * from KERNEL.older",
    "select KERNEL.half(4) as a",
    "select nextval(pg_get_serial_sequence('told', 'id')) as a",
)


def test_what_only_looks_like_it_is_allowed(counter: Counter) -> None:
    kernel = schema(counter.store)
    ask(counter.store, f"create table {kernel}.older (a integer)")  # it was there before, or is an extension's
    ask(counter.store, f"create function {kernel}.half(n integer) returns integer language sql as 'select n / 2'")

    def body(ctx: MutationContext) -> int:
        return len([ctx.db.all(sql.replace("KERNEL", kernel)) for sql in ALLOWED])

    assert told(counter, counter.shop.bad(body)) == len(ALLOWED)


def test_the_guard_knows_all_that_the_kernel_has(counter: Counter) -> None:
    here = "relnamespace = current_schema()::regnamespace and relkind in ('r', 'S', 'v', 'm')"
    found = ask(counter.store, f"select relname from pg_class where {here}")
    assert [name for (name,) in found if not is_kernels(name)] == []
    assert len(found) > 15


def test_a_query_only_reads(counter: Counter) -> None:
    queries = AppQueries(counter.shop.registry, settings=counter.bench.settings)
    said = [""]

    def query(ctx: QueryContext) -> None:
        ctx.db.all(said[0])

    made: Query[Any, Any] = Query("shop", query)
    counter.shop.registry.register(made)
    writes = (
        "insert into receipt values ('x', 1)",
        "update receipt set amount = 2",
        "with x as (delete from audit returning note) select * from x",
        "select nextval('told_id_seq')",
        "select * from receipt for update",
        "commit",
        "set transaction read write",
        "select * from run",
    )
    with counter.bench.reader() as reader:
        for sql in writes:
            said[0] = sql
            with pytest.raises(StepError) as refused, reader.snapshot():
                queries.call(reader, made.path, "{}")
            assert refused.value.type == "NotAllowed", sql
        said[0] = "select 1 as a"
        with reader.snapshot():
            assert queries.call(reader, made.path, "{}") == "null"
    queries.close()


def test_values_come_back_as_plain_ones(counter: Counter) -> None:
    shown = {
        "3": 3, "3000000000": 3_000_000_000, "1.5": 1.5, "10.00": 10, "sum(3000000000)": 3_000_000_000,
        "'x'": "x", "true": True, "null": None, "'[1]'::jsonb": "[1]", "array[1.5, 2]": [1.5, 2],
        "'2026-01-02'::date": "2026-01-02", "'2026-01-02 03:04:05+02'::timestamptz": "2026-01-02T01:04:05+00:00",
        "'2026-01-02 03:04'::timestamp": "2026-01-02T03:04:00", "'03:04'::time": "03:04:00",
        "'03:04+01'::timetz": "03:04:00+01:00", "'1 day'::interval": "1 day",
        "'10.0.0.1'::inet": "10.0.0.1", "'[1,3)'::int4range": "[1,3)", "row(1, 'a')": "(1,a)", "point(1, 2)": "(1,2)",
        "'00000000-0000-0000-0000-000000000001'::uuid": "00000000-0000-0000-0000-000000000001",
        "1::float8 / 4": 0.25, "'x'::char(3)": "x  ", "avg(3)": 3, "1::numeric / 3": 0.3333333333333333,
    }  # fmt: skip

    def body(ctx: MutationContext) -> list[Any]:
        assert ctx.db.all(r"select '\x00ff'::bytea as a", type=bytes) == [b"\0\xff"]
        return [ctx.db.all(f"select {sql} as a")[0]["a"] for sql in shown]

    assert told(counter, counter.shop.bad(body)) == list(shown.values())


def test_a_parameter_is_as_if_it_were_written(counter: Counter) -> None:
    def body(ctx: MutationContext) -> list[Any]:
        return [
            ctx.db.all("select substr('abc', ?) as a, ? as b, ?1 + ?3 as c", 2, "x", 3_000_000_000),
            ctx.db.all("select '?' as a, ? as b /* ? */ -- ?", 1),
            ctx.db.all("""select '{"a": 1}'::jsonb ?? 'a' as a, '{"a": 1}'::jsonb ??| array[?] as b""", "a"),
            ctx.db.all(
                "select encode(?, 'hex') as a, ?::boolean as b, ?::float8 as c, ?::text as d", b"x", True, 0.5, None
            ),
        ]

    assert told(counter, counter.shop.bad(body)) == [
        [{"a": "bc", "b": "x", "c": 3_000_000_002}],
        [{"a": "?", "b": 1}],
        [{"a": True, "b": True}],
        [{"a": "78", "b": True, "c": 0.5, "d": None}],
    ]


@pytest.mark.parametrize(
    ("sql", "given", "type_of_error"),
    [
        ("select ?", (), "ProgrammingError"),
        ("select 1", (1,), "ProgrammingError"),
        ("select $1", (), "ProgrammingError"),
        ("select '\0'", (), "ProgrammingError"),
        ("select '\ud800'", (), "ProgrammingError"),
        ("select 1 /* " + "x" * 1_000_000 + "*/", (), "ProgrammingError"),
        ("select 1 / 0", (), "DivisionByZero"),
        ("select * from nothing", (), "UndefinedTable"),
        ("insert into audit values (?)", ("a\0b",), "DataError"),
        ("select 1 from", (), "SyntaxError"),
        ("select (", (), "SyntaxError"),
        ("select 'x", (), "SyntaxError"),
        ("", (), "none"),
    ],
)
def test_an_error_of_the_statements_own_can_be_caught(
    counter: Counter, sql: str, given: tuple[Any, ...], type_of_error: str
) -> None:
    def body(ctx: MutationContext) -> str:
        try:
            ctx.db.execute(sql, *given)
        except Exception as error:
            ctx.db.execute("insert into receipt values ('after', 1)")
            return type(error).__name__
        return "none"

    assert told(counter, counter.shop.bad(body)) == type_of_error
    assert counter.rows() == [("after", 1), ("bad", 1)][type_of_error == "none" :]


def test_a_script_is_taken_apart() -> None:
    script = "a 'x;y' ; ;\n b $q$ ; $$ ; $q$; c (d; e); -- f;\n g /* ; /* ; */ */ \"h;\" ; create function x()"
    body = " begin atomic select case when a then b end; select 2; end; last"
    assert list(statements(script + body)) == [
        "a 'x;y'",
        "b $q$ ; $$ ; $q$",
        "c (d; e)",
        'g /* ; /* ; */ */ "h;"',
        "create function x() begin atomic select case when a then b end; select 2; end",
        "last",
    ]
    assert list(statements(" -- nothing\n;;")) == []


def test_parameters_are_numbered_as_sqlite_numbers_them() -> None:
    for sql, wanted in (
        ("? ? ?", ("$1 $2 $3", 3)),
        ("?2 ? ?1", ("$2 $3 $1", 3)),
        ("a ?? b, '?', \"?\", $$?$$, ?", ("a ? b, '?', \"?\", $$?$$, $1", 1)),
    ):
        assert with_parameters(sql, tokens(sql)) == wanted

"""What an operator may do about the app's tables on PostgreSQL: little rights for its user, a role that confines it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from stepwell.functions.contexts import MutationContext
from stepwell.kernel.calls import Forbidden
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.store.port import AppMigration
from stepwell.store.postgres.store import PostgresStore
from tests.functions.shop import Shop, opened
from tests.support import assert_lawful, postgres


def dba(statement: str) -> list[Any]:
    with psycopg.connect(postgres.server(), autocommit=True) as db:
        cursor = db.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[PostgresStore]:
    """A store of a user with no rights but its schema, which has its name."""
    address = postgres.address(tmp_path)
    name = address.rpartition("%3D")[2]
    dba(f"create role {name} login; alter schema {name} owner to {name}")
    try:
        yield PostgresStore(address.replace("//test@", f"//{name}@"))
    finally:
        dba(f"drop owned by {name} cascade; drop role {name}")


TABLES = AppMigration(1, "0001_a", "create table a (x integer); create table b (id serial, note text)", "h")


def test_a_user_who_may_not_make_a_schema_is_told_what_a_dba_does(plain: PostgresStore) -> None:
    plain.migrate()
    with pytest.raises(errors.Unavailable, match="permission denied") as refused:
        plain.migrate_app("shop", [TABLES])
    assert refused.value.hint is not None
    dba(refused.value.hint.partition(": ")[2])
    assert plain.migrate_app("shop", [TABLES]) == [1]


def test_a_role_confines_the_app_of_a_user_without_rights(plain: PostgresStore) -> None:
    plain.migrate()
    name = postgres.schema(plain)
    home = f"{name}_app"
    dba(f"create schema {home} authorization {name}; create role {home} nologin; grant {home} to {name}")
    try:
        assert plain.migrate_app("shop", [TABLES]) == [1]
        with closing(plain.session("l")) as session:
            session.begin()
            session.app.save()
            assert session.app.execute("insert into b (note) values (?) returning id", ("n",), 1).rows == [(1,)]
            assert session.app.execute("select current_user::text", (), 1).rows == [(home,)]
            for kept in (f"{name}_app.a; delete from {name}.run", f"select count(*) from {name}.run"):
                with pytest.raises((Forbidden, psycopg.ProgrammingError)):
                    session.app.execute(kept, (), 1)
            session.app.keep()
            assert session.runs_by_no([1]) == [], "the kernel is itself again"
            session.commit()
    finally:
        dba(f"drop owned by {home}; drop role {home}")


def test_a_role_confines_what_no_look_at_the_words_can_see(tmp_path: Path, shop: Shop) -> None:
    """A function of the app's own that reads the kernel's tables by a text."""

    def body(ctx: MutationContext) -> list[int]:
        return ctx.db.all("delete from receipt returning peek() as a", type=int)

    with opened("postgres", tmp_path, shop) as counter:
        kernel = postgres.address(tmp_path).rpartition("%3D")[2]
        text = f"'select count(*) from ' || '{kernel}' || '.run'"
        dba(f"""create function {kernel}_app.peek() returns bigint language plpgsql as $$
            declare n bigint; begin execute {text} into n; return n; end $$""")
        path = shop.bad(body)
        assert counter.invoke(path) == [0], "nothing else keeps it from that"
        dba(f"create role {kernel}_app nologin")
        try:
            with opened("postgres", tmp_path, shop) as confined:
                refused = confined.bench.refused(c.Invoke(path), errors.MutationFailed)
                assert msgspec.json.decode(refused.fields["failure"])["type"] == "NotAllowed"
                assert confined.invoke("shop:pay", '{"order_id":"good"}') == 1
                with confined.bench.reader() as reader, pytest.raises(Forbidden, match="denied"):
                    reader.app.execute("select peek()", (), 1)
                assert confined.rows() == [("good", 1)]
                assert_lawful(confined.store, confined.bench.settings)
        finally:
            dba(f"drop owned by {kernel}_app; drop role {kernel}_app")


def test_a_constraint_that_waits_for_the_commit_fails_its_mutation_alone(tmp_path: Path, shop: Shop) -> None:
    def early(ctx: MutationContext, parent: bool) -> None:
        ctx.db.execute("insert into child values (1)")
        if parent:
            ctx.db.execute("insert into parent values (1)")

    with opened("postgres", tmp_path, shop) as counter:
        path = shop.mutation(early).path
        tables = "create table parent (id integer primary key);"
        child = "create table child (id integer references parent deferrable initially deferred)"
        counter.store.migrate_app("other", [AppMigration(1, "0001_a", tables + child, "h")])
        first, second, third = counter.bench.all(
            c.Invoke(path, '{"parent":false}'), c.Invoke(path, '{"parent":true}'), c.Invoke(path, '{"parent":false}')
        )
        assert isinstance(first, errors.MutationFailed)
        assert msgspec.json.decode(first.fields["failure"])["type"] == "ForeignKeyViolation"
        assert isinstance(second, c.Invoked), "still deferred: the child came first"
        assert isinstance(third, c.Invoked)
        assert counter.invoke("shop:pay", '{"order_id":"a"}') == 1

"""An app with good and bad mutations, the tables it keeps, and a bench whose lane runs them."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import msgspec

from stepwell.functions.contexts import MutationContext, QueryContext
from stepwell.functions.define import Action, Mutation, Query, Signal, Workflow
from stepwell.functions.mutations import AppMutations
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.store.port import Store
from tests.support import Bench, open_store

TABLES = """
create table receipt (order_id text primary key, amount integer not null) strict;
create table audit (note text);
create table told (id integer primary key autoincrement, note text);
create view spied as select * from run;
create view notes as select note from told;
create trigger spying after insert on audit when new.note = 'spy' begin insert into meta values ('spy', 1); end;
"""
LIMIT_MS = 250
DONE: Signal[str] = Signal("done", str)


async def order(ctx: Any, number: int) -> str:
    return str(number)


def ship(number: int) -> str:
    return str(number)


def pay(ctx: MutationContext, order_id: str, amount: int = 1) -> int:
    return ctx.db.execute("insert into receipt values (?, ?)", order_id, amount)


def amounts(ctx: QueryContext) -> list[int]:
    return ctx.db.all("select amount from receipt order by order_id", type=int)


class Shop:
    """The functions by name. What is bad writes a receipt first, so that a test can see that it is gone."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.order: Workflow[Any, Any] = Workflow("shop", order)
        self.ship: Action[Any, Any] = Action("shop", ship)
        self.amounts: Query[Any, Any] = Query("shop", amounts)
        self.pay = self.mutation(pay)
        self.registry.register(self.order)
        self.registry.register(self.ship)
        self.registry.register(self.amounts)

    def mutation(self, fn: Callable[..., Any], name: str | None = None) -> Mutation[Any, Any]:
        mutation: Mutation[Any, Any] = Mutation("shop", fn, {"name": f"shop:{name}"} if name else {})
        self.registry.register(mutation)
        return mutation

    def bad(self, body: Callable[[MutationContext], Any], name: str = "bad") -> str:
        """A mutation that writes the receipt `bad`, then does what `body` does."""

        def bad(ctx: MutationContext) -> Any:
            ctx.db.execute("insert into receipt values ('bad', 1)")
            return body(ctx)

        bad.__annotations__["return"] = Any
        return self.mutation(bad, name).path


class Counter:
    """A bench with a shop: `calls` mutations as a workflow's step, `rows` says what its tables hold."""

    def __init__(self, store: Store, shop: Shop, migrations: Path) -> None:
        self.shop, self.store = shop, store
        settings = Settings(mutation_limit_ms=LIMIT_MS, payload_bytes=4_096, lease_ms=10_000)
        self.hook = AppMutations(shop.registry, app="shop", migrations=migrations, settings=settings)
        self.hook.migrate(store)
        self.bench = Bench(store, settings=settings, mutations=self.hook)

    def close(self) -> None:
        self.bench.close()
        self.hook.close()
        self.store.close()

    def rows(self) -> list[tuple[Any, ...]]:
        with self.bench.reader() as reader, reader.snapshot():
            return reader.app.execute("select order_id, amount from receipt order by 1", (), 1_000).rows

    def invoke(self, function: str, args: str = "{}", **fields: Any) -> Any:
        return msgspec.json.decode(self.bench.do(c.Invoke(function, args, **fields)).result)


@contextmanager
def opened(name: str, folder: Path, shop: Shop, script: str = TABLES) -> Iterator[Counter]:
    """A counter on a store of a kind, with the shop's tables."""
    migrations = folder / "migrations"
    migrations.mkdir(exist_ok=True)
    (migrations / "0001_shop.sql").write_text(script)
    counter = Counter(open_store(name, folder), shop, migrations)
    try:
        yield counter
    finally:
        counter.close()


def sleeps(ctx: MutationContext) -> None:
    time.sleep(30)


def spins(ctx: MutationContext) -> None:
    while True:
        pass


def spins_and_catches(ctx: MutationContext) -> None:
    for _ in range(20):
        with contextlib.suppress(BaseException):
            while True:
                pass


def spins_in_sql(ctx: MutationContext) -> None:
    ctx.db.all("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n", type=int)


def waits(ctx: MutationContext) -> None:
    threading.Event().wait()


def sleeps_by_its_own_name(ctx: MutationContext) -> None:
    sleep(30)


def connects(ctx: MutationContext) -> None:
    socket.create_connection(("127.0.0.1", 9))


def starts_thread(ctx: MutationContext) -> None:
    threading.Thread(target=print).start()


def starts_process(ctx: MutationContext) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def writes_file(ctx: MutationContext) -> None:
    (Path(tempfile.gettempdir()) / "stepwell-never").write_text("x")


def removes_file(ctx: MutationContext) -> None:
    os.remove("/nonexistent/stepwell")  # noqa: PTH107 - the plain call is what is refused


def makes_socket(ctx: MutationContext) -> None:
    socket.socket()


IO = (
    sleeps,
    sleeps_by_its_own_name,
    waits,
    connects,
    starts_thread,
    starts_process,
    writes_file,
    removes_file,
    makes_socket,
)
STATEMENTS = {
    "begin": "begin",
    "commit": "commit",
    "end": "END TRANSACTION",
    "rollback": "rollback",
    "savepoint": "savepoint x",
    "release": "release app",
    "rollback to": "rollback to app",
    "pragma": "pragma synchronous = off",
    "pragma function": "select * from pragma_table_info('receipt')",
    "attach": "attach ':memory:' as other",
    "analyze": "analyze",
    "create table": "create table mine (a)",
    "create temp table": "create temp table mine (a)",
    "create trigger": "create trigger t after insert on receipt begin delete from receipt; end",
    "drop table": "drop table receipt",
    "alter": "alter table receipt add column x",
    "extension": "select load_extension('x')",
    "read": "select id from run",
    "count": "select count(*) from run",
    "one": "select 1 from run",
    "exists": "select exists (select 1 from entry)",
    "aliased": "select r.no from run as r",
    "quoted": 'select * from "run"',
    "bracketed": "select * from [Run]",
    "backticks": "select * from `run`",
    "qualified": "select * from main.run",
    "upper": "SELECT * FROM MAIN.RUN",
    "cte": "with c as (select * from run) select count(*) from c",
    "subquery": "insert into audit (note) select id from run",
    "view": "select * from spied",
    "trigger": "insert into audit (note) values ('spy')",
    "insert": "insert into meta values ('x', 1)",
    "update": "update run set status = 'completed'",
    "update from": "update receipt set amount = lane.n from lane",
    "delete": "delete from message",
    "upsert": "insert into meta values ('x', 1) on conflict do update set value = 2",
    "replace": "replace into Main.[Meta] values ('x', 1)",
    "returning": "delete from task returning *",
    "sequence": "update sqlite_sequence set seq = 0",
    "ledger": "delete from app_migration",
    "migration": "delete from migration",
    "or rollback": "insert or rollback into receipt values ('bad', 2)",
    "or rollback, hidden": "insert or /* x */ RollBack into receipt values ('bad', 2)",
}

"""Mutations of several lanes on PostgreSQL that are in each other's way: each commits once, and holds up nobody."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell.functions.contexts import MutationContext
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.settings import Settings
from stepwell.store.postgres.store import PostgresStore
from stepwell.worker.local import open_store
from tests.functions.shop import Counter, Shop, opened, put_tables, spins_in_sql
from tests.support import Bench, assert_lawful, postgres
from tests.support.crowd import at_once
from tests.support.pgbouncer import Pooler
from tests.support.postgres import ask, schema

#: Of a mutation here: others are in its way, and the machine may be busy.
PATIENT_MS = 1_000


@pytest.fixture
def counter(tmp_path: Path, shop: Shop) -> Iterator[Counter]:
    with opened("postgres", tmp_path, shop, PATIENT_MS) as counter:
        yield counter
        assert_lawful(counter.store, counter.bench.settings)


@pytest.fixture
def benches(counter: Counter) -> Iterator[list[Bench]]:
    """Two lanes."""
    made = [Bench(counter.store, settings=counter.bench.settings, mutations=counter.hook, name=f"l{n}") for n in (1, 2)]
    yield made
    for bench in made:
        bench.close()


@contextmanager
def receipts_locked(counter: Counter) -> Iterator[None]:
    """Somebody else has changed all receipts, and does not commit."""
    assert isinstance(counter.store, PostgresStore)
    with closing(counter.store.connect()) as db:
        db.execute("begin")
        db.execute(f"update {schema(counter.store)}_app.receipt set amount = amount".encode())
        yield


@pytest.fixture(scope="module")
def pooler() -> Iterator[Pooler]:
    made = Pooler(postgres.server(), size=4)
    yield made
    made.close()


def test_two_that_wait_for_each_other_both_commit(counter: Counter, benches: list[Bench], shop: Shop) -> None:
    """Long before the server looks for a deadlock, and with what each of them does once."""
    met: set[int] = set()
    runs: list[str] = []

    def swap(ctx: MutationContext, first: str, second: str) -> None:
        runs.append(first)
        ctx.db.execute("update receipt set amount = amount + 1 where order_id = ?", first)
        met.add(threading.get_ident())
        until = time.perf_counter() + PATIENT_MS / 4_000
        while len(met) < 2 and time.perf_counter() < until:
            pass
        ctx.db.execute("update receipt set amount = amount + 1 where order_id = ?", second)

    path = shop.mutation(swap).path
    for name in ("a", "b"):
        counter.invoke("shop:pay", f'{{"order_id":"{name}"}}')
    calls = [c.Invoke(path, f'{{"first":"{one}","second":"{two}"}}') for one, two in ("ab", "ba")]
    replies = at_once(*(partial(bench.do, call) for bench, call in zip(benches, calls, strict=True)))
    assert [type(reply) for reply in replies] == [c.Invoked, c.Invoked]
    assert counter.rows() == [("a", 3), ("b", 3)]
    assert len(runs) > 2, "one of them ran again"


def test_one_that_cannot_have_its_way_is_run_six_times(counter: Counter, shop: Shop) -> None:
    """A failure to serialize, told by a function of the database. The rest of its batch waits no longer for it."""
    body = "$$ begin raise exception 'in the way' using errcode = 'serialization_failure'; end $$"
    made = f"create function {schema(counter.store)}_app.clash() returns integer language plpgsql as {body}"
    ask(counter.store, made)
    runs: list[int] = []

    def clash(ctx: MutationContext) -> None:
        runs.append(1)
        ctx.db.all("select clash() as a")

    replies = counter.bench.all(c.Invoke(shop.bad(clash)))
    assert isinstance(replies[0], errors.Unavailable)
    assert "in the way" in replies[0].message
    assert len(runs) == 6
    assert counter.rows() == []
    assert counter.invoke("shop:pay", '{"order_id":"next"}') == 1


def test_a_lock_that_somebody_holds_is_no_fault_of_the_mutation(counter: Counter, shop: Shop) -> None:
    """It is not failed for it: its caller tries again, and has its way once the lock is gone."""
    counter.invoke("shop:pay", '{"order_id":"a"}')
    lease = counter.bench.turn().lease

    def add(ctx: MutationContext) -> None:
        ctx.db.execute("update receipt set amount = amount + 1 where order_id = 'a'")

    write = c.Mutate(lease, 1, 2, "k", shop.mutation(add).path, "{}")
    with receipts_locked(counter):
        counter.bench.refused(write, errors.Unavailable)
    assert isinstance(counter.bench.do(write), c.Recorded)
    assert counter.rows() == [("a", 2)]
    assert counter.bench.kinds()[-1] == "step.completed"


def test_who_does_not_want_to_wait_is_told_so_and_goes_on(counter: Counter, shop: Shop) -> None:
    counter.invoke("shop:pay", '{"order_id":"a"}')

    def body(ctx: MutationContext) -> str:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            ctx.db.all("select * from receipt where order_id = 'a' for update nowait")
        return "later"

    with receipts_locked(counter):
        assert counter.invoke(shop.bad(body)) == "later"


def test_one_counter_of_two_lanes_counts_each_once(counter: Counter, benches: list[Bench], shop: Shop) -> None:
    def add(ctx: MutationContext) -> None:
        ctx.db.execute("update receipt set amount = amount + 1 where order_id = 'n'")

    path = shop.mutation(add).path
    counter.invoke("shop:pay", '{"order_id":"n","amount":0}')

    def call(bench: Bench) -> list[Any]:
        return [reply for _ in range(5) for reply in bench.all(*[c.Invoke(path)] * 5)]

    replies = [reply for some in at_once(*(partial(call, bench) for bench in benches)) for reply in some]
    assert {type(reply) for reply in replies} == {c.Invoked}
    assert counter.rows() == [("n", 50)]


def test_a_connection_that_is_cut_in_a_mutation_runs_it_again(counter: Counter, shop: Shop) -> None:
    runs: list[int] = []
    mine = "state = 'idle in transaction' and pid <> pg_backend_pid()"

    def body(ctx: MutationContext) -> int:
        runs.append(1)
        if len(runs) == 1:
            ask(counter.store, f"select pg_terminate_backend(pid) from pg_stat_activity where {mine}")
        return ctx.db.execute("insert into receipt values ('good', 1)")

    assert counter.invoke(shop.bad(body)) == 1
    assert len(runs) == 2
    assert counter.rows() == [("bad", 1), ("good", 1)]


@pytest.mark.parametrize("catches", [False, True])
def test_a_number_that_another_lane_takes_in_the_middle_of_a_mutation_runs_it_again(
    counter: Counter, shop: Shop, catches: bool
) -> None:
    """What it starts is to have the number after that of the start before it. No function can make up for that."""
    runs: list[int] = []

    def body(ctx: MutationContext) -> int:
        runs.append(1)
        ctx.db.execute("insert into receipt values ('good', 1)")
        if len(runs) == 1:
            ask(counter.store, "select nextval('run_no')")
        with suppress(Exception) if catches else nullcontext():
            ctx.options(id="inner").start(shop.order, 1)
        return len(runs)

    started, invoked = counter.bench.all(c.StartRun("outer", "wf"), c.Invoke(shop.bad(body)))
    assert (started.created, invoked.result) == (True, "2")
    assert counter.rows() == [("bad", 1), ("good", 1)]
    assert counter.bench.run("inner").no == started.run_no + 1
    assert counter.bench.kinds("inner") == ["run.created"]


def test_behind_a_pooler_nothing_of_a_mutation_stays_on_the_servers_connection(
    pooler: Pooler, tmp_path: Path, shop: Shop
) -> None:
    """Neither its path nor its limit nor what it prepared: the next transaction may be on another one."""

    def body(ctx: MutationContext) -> list[Any]:
        with pytest.raises(psycopg.errors.UniqueViolation):
            ctx.db.execute("insert into receipt values (?, ?)", "bad", 1)
        return ctx.db.all("select amount from receipt where order_id = ?", "bad", type=int)

    put_tables(tmp_path / "migrations")
    url = pooler.database(tmp_path)
    store = open_store(url, Settings())
    store.migrate()
    counter = Counter(store, shop, tmp_path / "migrations", PATIENT_MS)
    other = Bench(store, settings=counter.bench.settings, mutations=counter.hook, name="other")
    path, slow = shop.bad(body), shop.bad(spins_in_sql, "slow")
    assert counter.invoke(path) == [1]
    for number in range(20):
        bench = (counter.bench, other)[number % 2]
        replies = bench.all(c.Invoke("shop:pay", f'{{"order_id":"{number:02}"}}'), c.StartRun(f"r{number}", "wf"))
        assert [type(reply) for reply in replies] == [c.Invoked, c.Started]
    other.refused(c.Invoke(slow), errors.MutationFailed)
    assert len(counter.rows()) == 21
    with closing(psycopg.connect(url.replace("&pooled=true", ""), autocommit=True)) as db:
        for _ in range(8):
            shown = db.execute(
                "select current_setting('search_path'), current_setting('statement_timeout')", prepare=False
            )
            assert shown.fetchone() == ('"$user", public', "0")
    other.close()
    counter.close()

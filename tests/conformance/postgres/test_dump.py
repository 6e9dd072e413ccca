"""What PostgreSQL itself brings to another server: a store that goes on there as if nothing had been."""

import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, assert_lawful, postgres
from tests.support.postgres import Server, ask

from ..test_changes import positions

#: Behind the numbers of a server that was just made.
BURN = "do $$ begin for i in 1..2000 loop perform pg_current_xact_id(); commit; end loop; end $$"


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def brought(store: PostgresStore, server: Server) -> PostgresStore:
    """The store as a dump restores it on another server, by the programs of PostgreSQL."""
    schema = postgres.schema(store)
    dump = subprocess.run(
        [server.binaries / "pg_dump", "--schema", schema, postgres.server()], check=True, capture_output=True
    )
    subprocess.run(
        [server.binaries / "psql", "--quiet", "--set", "ON_ERROR_STOP=1", server.conninfo],
        input=dump.stdout, check=True, capture_output=True,
    )  # fmt: skip
    return PostgresStore(f"{server.url}&options=-csearch_path%3D{schema}")


def test_a_dump_that_was_restored_goes_on_on_another_server(store: PostgresStore, elsewhere: Server) -> None:
    ask(store, BURN)
    payload = '"' + "large " * 5_000 + '"'
    with closing(Bench(store)) as bench:
        bench.do(c.SetPool(Pool("main", "tight", limit=1)))
        held = bench.turn("held", pool="tight")
        bench.do(c.Finish(bench.turn("done").lease, 1, c.Completed(payload)))
        bench.start("blocked", pool="tight")
        before = positions(store)
        bench.start("unstamped")
    with closing(brought(store, elsewhere)) as there:
        there.migrate()
        assert positions(there) == [*before, len(before) + 1]
        with closing(Bench(there, clock=bench.clock)) as bench:
            assert [task.run.id for task in bench.claim(10)] == ["unstamped"], "the limit is known there"
            bench.do(c.Finish(held.lease, 1, c.Completed("1")))
            assert [task.run.id for task in bench.claim(10)] == ["blocked"]
            assert bench.run("done").result == payload
            assert bench.start("new").run_no > 4
        count = len(positions(there))
        assert positions(there) == [*range(1, count + 1)]
        assert_lawful(there)

"""A steady load with retention on PostgreSQL, for SOAK_SECONDS: at most 30 % of its tables and indexes are air."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.model.settings import Settings
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench
from tests.support.postgres import Server
from tests.support.soak import rounds

DAY_MS = 86_400_000
#: Runs that end in a round, and how many rounds make a day, after which they go.
ROUND, DAY_ROUNDS = 100, 200
TABLES = ("run", "task", "entry", "event", "output", "request", "change")
BLOAT = 0.30


@pytest.fixture
def store() -> Iterator[PostgresStore]:
    server = Server(autovacuum="on", autovacuum_naptime="1s", shared_buffers="128MB")
    store = PostgresStore(server.url)
    store.migrate()
    yield store
    store.close()
    server.close()


def live(bench: Bench, number: int) -> None:
    """Events and their runs, from the first lease to the end, and what is past its retention."""
    bench.clock.tick(DAY_MS // DAY_ROUNDS)
    ids = [f"{number}.{n}" for n in range(ROUND)]
    bench.all(*(c.AcceptEvent(c.NewEvent(i, "t", "2026", "h"), (c.Match("flow", "go"),)) for i in ids))
    claimed = bench.claim(limit=ROUND)
    assert len(claimed) == ROUND
    drafts = (c.Draft(StepCompleted(), "k"),)
    bench.all(*(c.Say(one.lease, 0, (("stdout", "said " * 20),)) for one in claimed))
    if claimed[0].kind == "turn":
        bench.all(*(c.Record(one.lease, 1, 1_000, drafts) for one in claimed))
    bench.all(*(c.Finish(one.lease, 1, c.Completed('"done"')) for one in claimed))
    while bench.do(c.Prune()).more:
        pass


def sizes(store: PostgresStore) -> dict[str, tuple[int, int]]:
    """Bytes of each table with its indexes, as it is and as a copy of its rows."""
    found: dict[str, tuple[int, int]] = {}
    with closing(store.connect()) as db:
        for table in TABLES:
            db.execute(f"create table fresh (like {table} including all excluding identity)".encode(), prepare=False)
            names = "attrelid = 'fresh'::regclass and attnum > 0 and attgenerated = ''"
            of_names = "select string_agg(quote_ident(attname), ', ') from pg_attribute where "
            columns = db.execute((of_names + names).encode()).fetchall()[0][0]
            copied = f"insert into fresh ({columns}) select {columns} from {table}"
            db.execute(copied.encode(), prepare=False)
            both = "select pg_total_relation_size($1::regclass), pg_total_relation_size('fresh')"
            found[table] = db.execute(both.encode(), (table,)).fetchall()[0]
            db.execute(b"drop table fresh", prepare=False)
    return found


@pytest.mark.soak
def test_tables_under_a_steady_load_with_retention_stay_full(store: PostgresStore) -> None:
    bench = Bench(store, settings=Settings(event_retention_days=1, change_retention=1_000))
    lived = 0
    for number in rounds(at_least=2 * DAY_ROUNDS):
        live(bench, number)
        lived += ROUND
    found = sizes(store)
    bench.close()
    kept = ROUND * DAY_ROUNDS
    for table, (size, fresh) in found.items():
        print(f"{table:8} {size / 2**20:7.1f} MiB, as a copy {fresh / 2**20:7.1f} MiB")
    size, fresh = (sum(pair[place] for pair in found.values()) for place in (0, 1))
    print(f"{lived:,} runs, about {kept:,} are kept: {1 - fresh / size:.0%} of {size / 2**20:.0f} MiB")
    assert 1 - fresh / size <= BLOAT
    with closing(store.reader()) as reader:
        assert reader.orphans() == []

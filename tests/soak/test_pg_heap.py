"""What a claim, a start and a promotion cost beside a heap of 100,000 tasks that cannot run, and beside 2,000.

Counted in blocks that the server reads, so a busy machine is no excuse. With little SOAK_SECONDS the heap is smaller.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.crash.crowd import soak_s
from tests.support import Bench, Clock
from tests.support.heap import pile
from tests.support.stores import migrated

SMALL, FULL, FULL_S = 2_000, 100_000, 600
#: So many rounds move aside no more than the small heap has (`MOVED_ASIDE`).
ROUNDS = 8
WAIT_S = 20.0
#: How many blocks more it may be: the indexes of a large heap are a level higher.
HIGHER = 1.5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PostgresStore]:
    with migrated(tmp_path) as store:
        yield store


def now_bench(store: PostgresStore) -> "closing[Bench]":
    return closing(Bench(store, clock=Clock(int(time.time() * 1_000))))


def blocks(store: PostgresStore) -> int:
    """How many blocks all sessions have read of tables and indexes: each says it when it ends."""
    others = "select application_name, state, query from pg_stat_activity"
    others += " where backend_type = 'client backend' and pid <> pg_backend_pid()"
    read = "select sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0))::bigint"
    read += " from pg_statio_user_tables where schemaname = current_schema"
    with closing(store.connect()) as db:
        until = time.monotonic() + WAIT_S
        while found := db.execute(others.encode()).fetchall():
            assert time.monotonic() < until, found
            time.sleep(0.02)
        return int(db.execute(read.encode()).fetchall()[0][0])


def cost(store: PostgresStore, name: str, keyed: bool) -> tuple[float, float]:
    """Blocks of a round, and the median of its milliseconds: newcomers start, are claimed, and end; a promotion."""
    before, took = blocks(store), list[float]()
    with now_bench(store) as bench:
        for number in range(ROUNDS):
            names = [f"{name}-plain{number}", f"{name}-keyed{number}"][: 1 + keyed]
            began = time.perf_counter()
            for one, pool, key in zip(names, ("default", "tight"), (None, f"{name}{number}"), strict=False):
                bench.do(c.StartRun(one, "wf", pool=pool, pool_key=key))
            claimed = bench.do(c.Claim("w", f"{name}{number}", limit=1_000)).tasks
            bench.all(*(c.Finish(leased.lease, 1, c.Completed("1")) for leased in claimed))
            bench.do(c.Promote())
            took.append(time.perf_counter() - began)
            assert {leased.run.id for leased in claimed} == set(names)
    return (blocks(store) - before) / ROUNDS, 1_000 * median(took)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("pool", "key", "state"),
    [
        pytest.param(Pool("main", "tight", limit=7, key_limit=1), "big", "blocked", id="blocked"),
        pytest.param(Pool("main", "tight", limit=7, key_limit=1), "big", "ready", id="moved aside"),
        pytest.param(Pool("main", "tight", limit=1), None, "ready", id="full"),
        pytest.param(Pool("main", "tight", rate=1, rate_ms=86_400_000), None, "ready", id="rate"),
        pytest.param(Pool("main", "tight", limit=7, paused=True), None, "ready", id="paused"),
    ],
)
def test_a_claim_beside_a_large_heap_costs_what_it_costs_beside_a_small_one(
    store: PostgresStore, pool: Pool, key: str | None, state: str
) -> None:
    count = max(10 * SMALL, int(FULL * min(1.0, soak_s() / FULL_S)))
    with now_bench(store) as bench:
        bench.do(c.SetPool(pool))
        if not pool.paused:
            bench.turn("held", pool="tight", pool_key=key)
    pile(store, 0, SMALL, key, state)
    beside_small, small_ms = cost(store, "small", key is not None)
    pile(store, SMALL, count, key, state)
    beside_large, large_ms = cost(store, "large", key is not None)
    for size, read, ms in ((SMALL, beside_small, small_ms), (count, beside_large, large_ms)):
        print(f"\nbeside {size:,}: {read:.0f} blocks, {ms:.1f} ms a round", end="")
    assert beside_large < HIGHER * beside_small

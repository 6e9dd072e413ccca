"""Pools and scopes between lanes: nobody waits behind another, however many tasks that one has."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench

LANES = 3


@pytest.fixture
def benches(store: PostgresStore) -> Iterator[list[Bench]]:
    benches = [Bench(store, name=f"lane{number}") for number in range(LANES)]
    yield benches
    for bench in benches:
        bench.close()


def served(benches: list[Bench], claims: int, **fields: Any) -> list[c.Leased]:
    """What claims for one task get that lanes send in turn, each ended at once."""
    leases: list[c.Leased] = []
    for number in range(claims):
        bench = benches[number % len(benches)]
        for leased in bench.do(c.Claim("w", f"secret{number}", limit=1, **fields)).tasks:
            leases.append(leased)
            bench.do(c.Finish(leased.lease, 1, c.Completed("1")))
    return leases


def test_nobody_waits_behind_the_key_with_thousands_of_tasks(benches: list[Bench]) -> None:
    """Fifty keys of limit 1: one came first with 2,000 tasks and is never free, each other has its turn at once."""
    keys = [f"k{number}" for number in range(49)]
    benches[0].do(c.SetPool(Pool("main", "tight", limit=7, key_limit=1)))
    benches[0].all(*(c.StartRun(f"big{number}", "wf", pool="tight", pool_key="big") for number in range(2_000)))
    (held,) = benches[0].claim(limit=1)
    assert held.run.id == "big0"
    benches[1].all(*(c.StartRun(key, "wf", pool="tight", pool_key=key) for key in keys))
    assert [leased.run.pool_key for leased in served(benches, len(keys))] == keys


def test_nobody_waits_behind_the_scope_with_thousands_of_tasks(benches: list[Bench]) -> None:
    """Two hundred scopes: each gets one lease of a few hundred claims, though one of them came first with 2,000."""
    benches[0].all(*(c.StartRun(f"big{number}", "wf", scope="s100") for number in range(2_000)))
    benches[1].all(*(c.StartRun("one", "wf", scope=f"s{number:03}") for number in range(200) if number != 100))
    claims = [c.Claim("w", f"secret{number}", limit=50) for number in range(6)]
    claimed = [benches[number % LANES].do(claim) for number, claim in enumerate(claims)]
    leased = Counter(one.run.scope for reply in claimed for one in reply.tasks)
    assert leased.total() == 300
    assert len(leased) == 200
    assert leased["s100"] == 300 - 199
    assert all(reply.more for reply in claimed)


def test_a_claim_for_many_takes_the_most_urgent_of_a_scope_first(benches: list[Bench]) -> None:
    """Of two flows of one scope, one has all that is urgent; the other scope still has its half."""
    for name, scope, priority in (("urgent", "a", -1), ("idle", "a", 0), ("other", "b", 0)):
        starts = (c.StartRun(f"{name}{n}", name, scope=scope, priority=priority) for n in range(60))
        benches[0].all(*starts)
    leased = Counter(one.run.name for one in benches[1].claim(limit=100))
    assert leased == {"urgent": 50, "other": 50}

"""Pools and scopes between lanes: limits are kept, nobody waits behind another, and no lock is waited for in a ring."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, assert_lawful, postgres

LANES = 3
POOLS = ("a", "b", "c", "d")
STRESS_S = 2.0


@pytest.fixture
def store(tmp_path: Path) -> PostgresStore:
    store = PostgresStore(postgres.address(tmp_path))
    store.migrate()
    return store


@pytest.fixture
def benches(store: PostgresStore) -> Iterator[list[Bench]]:
    benches = [Bench(store, name=f"lane{number}") for number in range(LANES)]
    yield benches
    for bench in benches:
        bench.close()


def ask(store: PostgresStore, statement: str, *values: Any) -> list[Any]:
    with closing(store.connect()) as db:
        cursor = db.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def at_once(*works: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result() for one in [pool.submit(work) for work in works]]


def deadlocks(store: PostgresStore) -> int:
    ask(store, "select pg_stat_clear_snapshot()")
    return int(ask(store, "select deadlocks from pg_stat_database where datname = current_database()")[0][0])


class Over:
    """Looks at the database while others work: how many tasks of a pool, and of a key, were leased at once at most."""

    def __init__(self, store: PostgresStore) -> None:
        self._store, self._over = store, threading.Event()
        self.pool: Counter[str] = Counter()
        self.key: Counter[tuple[str, str]] = Counter()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with closing(self._store.connect()) as db:
            while not self._over.wait(0.002):
                self.looks += 1
                pools: Counter[str] = Counter()
                for pool, key, used in db.execute(
                    b"select pool, pool_key, count(*) from task where state = 'leased' group by pool, pool_key"
                ):
                    pools[pool] += used
                    self.key[pool, key] = max(self.key[pool, key], used)
                self.pool |= pools


class Taker:
    """One lane among others that all lease from the same few pools, named in any order; it ends what it gets."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench, self._name, self._chance, self._ids = bench, f"w{number}", random.Random(number), count()
        self.leases: list[tuple[int, int, int]] = []
        self.surprises: list[StepwellError] = []

    def _command(self) -> c.Command:
        pick, secret = self._chance.choice, f"{self._name} {next(self._ids)}"
        pool, key = pick(POOLS), f"k{self._chance.randrange(4)}"
        fused = c.ClaimFor(self._name, 120_000, secret) if self._chance.random() < 0.5 else None
        commands: tuple[Callable[[], c.Command], ...] = (
            lambda: c.StartRun(secret, "wf", pool=pool, pool_key=key, claim_for=fused),
            lambda: c.StartRun(f"shared{self._chance.randrange(400)}", "wf", pool=pool, pool_key=key),
            lambda: c.Claim(self._name, secret, pools=(pool,), limit=3),
            lambda: c.Claim(self._name, secret, pools=tuple(self._chance.sample(POOLS, 2)), limit=3),
            lambda: c.Promote((("main", pool, key), ("main", pick(POOLS), key))),
            c.Promote,
            c.Sweep,
            lambda: c.SetPool(Pool("main", pool, limit=3, key_limit=1), limits_only=True),
        )
        return pick(commands)()

    def live(self, until: float) -> None:
        while time.monotonic() < until:
            replies = self._bench.all(*(self._command() for _ in range(self._chance.randrange(1, 7))))
            for reply in replies:
                if isinstance(reply, StepwellError) and reply.code in ("internal", "unavailable"):
                    self.surprises.append(reply)
                if isinstance(reply, c.Started) and reply.claim is not None:
                    self._end(reply.claim)
                for leased in reply.tasks if isinstance(reply, c.Claimed) else ():
                    self._end(leased)

    def _end(self, leased: c.Leased) -> None:
        self.leases.append((leased.lease.run_no, leased.lease.k, leased.lease.epoch))
        self._bench.do(c.Finish(leased.lease, 1, c.Completed("1")))


def test_lanes_that_lease_from_the_same_pools_never_wait_in_a_ring(store: PostgresStore, benches: list[Bench]) -> None:
    before = deadlocks(store)
    benches[0].all(*(c.SetPool(Pool("main", name, limit=3, key_limit=1)) for name in POOLS))
    takers = [Taker(bench, number) for number, bench in enumerate(benches)]
    until = time.monotonic() + STRESS_S
    with Over(store) as seen:
        at_once(*(lambda taker=taker: taker.live(until) for taker in takers))
    leases = [lease for taker in takers for lease in taker.leases]
    assert [taker.surprises for taker in takers] == [[]] * LANES
    assert len(leases) == len(set(leases)) > 0
    assert seen.looks > 10
    assert max(seen.pool.values()) <= 3
    assert max(seen.key.values()) == 1
    assert deadlocks(store) == before
    assert_lawful(store)


# ── fairness ─────────────────────────────────────────────────────────────────────────────────────────────────────


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

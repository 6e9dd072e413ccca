"""Lanes that race: no deadlock, nothing leased twice, no pool over its limit, and a lawful end."""

import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from typing import Self

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import SignalSent
from stepwell.model.errors import StepwellError
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, Clock, assert_lawful
from tests.support.crowd import at_once
from tests.support.postgres import ask, deadlocks

POOLS = ("a", "b", "c", "d")
STRESS_S = 2.0


@contextmanager
def lanes(store: PostgresStore, number: int, clock: Clock | None = None) -> Iterator[list[Bench]]:
    """So many; what they leave behind is lawful, and none of them was in a deadlock."""
    before = deadlocks(store)
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Bench(store, clock=clock, name=f"lane{n}"))) for n in range(number)]
    assert deadlocks(store) == before
    assert_lawful(store)


class Racer(ABC):
    """One lane among others: batches of any commands in any order, and what it leases it brings to an end."""

    def __init__(self, bench: Bench, seed: str) -> None:
        self.bench, self.name, self.chance = bench, seed, random.Random(seed)
        self.leases: list[tuple[int, int, int]] = []
        self.surprises: list[StepwellError] = []
        self._secrets = count()

    @abstractmethod
    def command(self) -> c.Command:
        """The next one of a batch."""

    def secret(self) -> str:
        return f"{self.name} {next(self._secrets)}"

    def fused(self, chance: float) -> c.ClaimFor | None:
        return c.ClaimFor(self.name, 120_000, self.secret()) if self.chance.random() < chance else None

    def batch(self, most: int) -> None:
        for reply in self.bench.all(*(self.command() for _ in range(self.chance.randrange(1, most + 1)))):
            if isinstance(reply, StepwellError) and reply.code in ("internal", "unavailable"):
                self.surprises.append(reply)
            if isinstance(reply, c.Started) and reply.claim is not None:
                self._leased(reply.claim)
            for leased in reply.tasks if isinstance(reply, c.Claimed) else ():
                self._leased(leased)

    def _leased(self, leased: c.Leased) -> None:
        self.leases.append((leased.lease.run_no, leased.lease.k, leased.lease.epoch))
        self.end(leased)

    def end(self, leased: c.Leased) -> None:
        self.bench.do(c.Finish(leased.lease, 1, c.Completed("1")))


def assert_nothing_twice(racers: Sequence[Racer]) -> None:
    """No lease was given twice, and no answer but those that the rules give."""
    leases = [lease for racer in racers for lease in racer.leases]
    assert [racer.surprises for racer in racers] == [[]] * len(racers)
    assert len(leases) == len(set(leases)) > 0


class Messenger(Racer):
    """Goes for few runs, with claims, messages and roles; each tells another run something before it ends."""

    def command(self) -> c.Command:
        pick = self.chance.randrange
        name, pool = f"r{pick(12)}", ("tight", "wide")[pick(2)]
        fused = self.fused(1 / 3)
        commands: tuple[Callable[[], c.Command], ...] = (
            lambda: c.StartRun(name, "wf", pool=pool, claim_for=fused),
            lambda: c.Signal(name, "s", dedup=f"d{pick(3)}"),
            lambda: c.Claim(self.name, self.secret(), limit=3),
            lambda: c.Cancel(name),
            c.Sweep,
            c.Deliver,
            c.Promote,
            lambda: c.AcceptEvent(c.NewEvent(f"e{pick(4)}", "t", "2026", "h")),
        )
        return commands[pick(len(commands))]()

    def end(self, leased: c.Leased) -> None:
        signal = SignalSent(f"r{self.chance.randrange(12)}", "s", dedup=f"d{self.chance.randrange(3)}")
        self.bench.all(c.Record(leased.lease, 1, 1_000, (c.Draft(signal, "signal"),)))
        self.bench.all(c.Finish(leased.lease, 2, c.Completed("1")))


@pytest.mark.parametrize("seed", range(3))
def test_lanes_that_race_for_the_same_runs_come_to_a_lawful_end(store: PostgresStore, seed: int) -> None:
    with lanes(store, 4, Clock()) as benches:
        benches[0].do(c.SetPool(Pool("main", "tight", limit=2)))
        racers = [Messenger(bench, f"{seed} {bench.lane.name}") for bench in benches]
        at_once(*(lambda racer=racer: [racer.batch(5) for _ in range(25)] for racer in racers))
        benches[0].settle()
    assert_nothing_twice(racers)


class Taker(Racer):
    """Leases from the same few pools as the others, named in any order."""

    def command(self) -> c.Command:
        pick, secret = self.chance.choice, self.secret()
        pool, key = pick(POOLS), f"k{self.chance.randrange(4)}"
        fused = self.fused(1 / 2)
        commands: tuple[Callable[[], c.Command], ...] = (
            lambda: c.StartRun(secret, "wf", pool=pool, pool_key=key, claim_for=fused),
            lambda: c.StartRun(f"shared{self.chance.randrange(400)}", "wf", pool=pool, pool_key=key),
            lambda: c.Claim(self.name, secret, pools=(pool,), limit=3),
            lambda: c.Claim(self.name, secret, pools=tuple(self.chance.sample(POOLS, 2)), limit=3),
            lambda: c.Promote((("main", pool, key), ("main", pick(POOLS), key))),
            c.Promote,
            c.Sweep,
            lambda: c.SetPool(Pool("main", pool, limit=3, key_limit=1), limits_only=True),
        )
        return pick(commands)()

    def live(self, until: float) -> None:
        while time.monotonic() < until:
            self.batch(6)


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


def test_lanes_that_lease_from_the_same_pools_never_wait_in_a_ring(store: PostgresStore) -> None:
    with lanes(store, 3) as benches:
        benches[0].all(*(c.SetPool(Pool("main", name, limit=3, key_limit=1)) for name in POOLS))
        takers = [Taker(bench, f"w{number}") for number, bench in enumerate(benches)]
        until = time.monotonic() + STRESS_S
        with Over(store) as seen:
            at_once(*(lambda taker=taker: taker.live(until) for taker in takers))
    assert_nothing_twice(takers)
    assert seen.looks > 10
    assert max(seen.pool.values()) <= 3
    assert max(seen.key.values()) == 1


def test_a_limited_pool_is_never_over_its_limit(store: PostgresStore) -> None:
    done: list[int] = []

    def work(bench: Bench) -> int:
        most = 0
        for turn in range(30):
            leased = bench.do(c.Claim(bench.lane.name, f"{bench.lane.name}.{turn}", limit=5)).tasks
            most = max(most, ask(store, "select count(*) from task where state = 'leased'")[0][0])
            for one in leased:
                bench.do(c.Finish(one.lease, 1, c.Completed("1")))
                done.append(one.run.no)
        return most

    with lanes(store, 4) as benches:
        benches[0].do(c.SetPool(Pool("main", "tight", limit=3)))
        benches[0].all(*(c.StartRun(f"r{number}", "wf", pool="tight") for number in range(200)))
        assert max(at_once(*(lambda b=b: work(b) for b in benches))) <= 3
    assert len(done) == len(set(done)) > 30

"""Lanes on PostgreSQL that meet at the same runs: who waits for whom, and who does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.model import commands as c
from stepwell.store.port import Store
from tests.support.bench import LEASE_MS, Bench
from tests.support.stores import open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("postgres", tmp_path)


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()


def beat(bench: Bench, *tasks: c.Leased, lease_ms: int = 60_000) -> list[c.Synced]:
    answer: c.Beats = bench.do(c.Sync("w", tuple(c.Beat(task.lease) for task in tasks), lease_ms))
    return answer.tasks


def test_a_heartbeat_waits_for_nobody_and_extends_what_is_free(bench: Bench, store: Store) -> None:
    """A run may be under the hands of a lane for as long as a mutation takes."""
    for no in range(3):
        bench.start(f"r{no}")
    tasks = bench.claim(lease_ms=60_000)
    other = store.session("other")
    other.begin()
    other.runs([tasks[1].run.no])
    bench.clock.tick(30_000)
    before = [task.lease_until for task in tasks]
    free, busy, also_free = beat(bench, *tasks)
    assert (free.lease_until, busy.lease_until, also_free.lease_until) == (
        before[0] + 30_000,
        before[1],
        before[2] + 30_000,
    )
    assert not any(one.error for one in (free, busy, also_free))
    other.rollback()
    assert beat(bench, *tasks)[1].lease_until == before[1] + 30_000
    other.close()


def test_a_heartbeat_that_writes_nothing_holds_up_nobody(store: Store) -> None:
    """It tells the news of a run that another lane has: its last commit."""
    other, free = store.session("other"), list[int]()

    def another_lane(point: str) -> None:
        if point == "decided" and beating:
            other.begin()
            free.extend(run.no for run in other.free([task.run.no]))
            other.rollback()

    beating = False
    bench = Bench(store, fault=another_lane)
    task = bench.turn("r")
    bench.do(c.Signal("r", "s"))
    beating = True
    (told,) = beat(bench, task, lease_ms=LEASE_MS)
    assert ([entry.kind for entry in told.missed], free) == (["signal.received"], [task.run.no])
    bench.clock.tick(30_000)
    beat(bench, task, lease_ms=LEASE_MS)
    assert free == [task.run.no], "one that is written is nobody else's"
    for one in (other, bench):
        one.close()

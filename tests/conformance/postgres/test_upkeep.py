"""What keeps tables small and quick for years: rows changed in their place, vacuums in time, plans that do not rot."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.model.rows import Pool
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench
from tests.support.postgres import ask

WAIT_S = 10.0
FIRST = 1_000_000
PARKED = Path(__file__).with_name("parked.sql")


def updates(store: PostgresStore, table: str) -> tuple[int, int]:
    """How many rows of a table were changed, and how many of those in their place: a server tells it a moment later."""
    until = time.monotonic() + WAIT_S
    statement = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = $1::regclass"
    while True:
        ((changed, in_place),) = ask(store, statement, table)
        if changed or time.monotonic() > until:
            return changed, in_place


def test_a_run_is_changed_in_its_place_until_it_ends(store: PostgresStore) -> None:
    """Else each step writes to every index of the run."""
    bench = Bench(store)
    for number in range(20):
        lease = bench.turn(f"r{number}").lease
        for n in range(1, 5):
            bench.record(lease, n, StepCompleted(), key=f"k{n}")
        bench.do(c.Park(lease, 5, 1_000, ("signal:x",)))
        bench.do(c.Signal(f"r{number}", "x"))
        bench.claim()
    bench.close()
    changed, in_place = updates(store, "run")
    assert changed > 100
    assert in_place == changed


def test_tables_that_change_are_vacuumed_long_before_a_fifth_is_dead(store: PostgresStore) -> None:
    own = "where relkind = 'r' and relnamespace = current_schema::regnamespace"
    found = ask(store, f"select relname, array_to_string(reloptions, ' ') from pg_class {own}")
    settled = {name for name, options in found if "autovacuum_vacuum_scale_factor" in (options or "")}
    assert settled >= {"run", "task", "entry", "event", "output", "blob", "message", "request", "change", "unstamped"}


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────


def park(store: PostgresStore, count: int) -> None:
    """So many parked runs, of which the server has no statistics."""
    with closing(store.connect()) as db:
        for statement in PARKED.read_bytes().strip().rstrip(b";").split(b";"):
            db.execute(statement, (FIRST, FIRST + count - 1))


class Work:
    """Everything that lanes and roles do again and again, on one session; how long each took, in seconds."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.took: dict[str, list[float]] = {}

    def _timed(self, name: str, command: c.Command) -> Any:
        began = time.perf_counter()
        reply = self._bench.do(command)
        self.took.setdefault(name, []).append(time.perf_counter() - began)
        return reply

    def round(self, number: int) -> None:
        secret: Callable[[str], str] = lambda name: f"{name}{number}"  # noqa: E731 - a word for one line
        self._timed("start", c.StartRun(secret("plain"), "wf"))
        self._timed("start", c.StartRun(secret("tight"), "wf", pool="tight", pool_key=secret("k")))
        for command in (c.Sweep(), c.Fire(), c.Deliver(), c.Promote(), c.Prune(), c.Bury("nobody")):
            self._timed(type(command).__name__, command)
        claimed = self._timed("Claim", c.Claim("w", secret("secret"), limit=5))
        assert len(claimed.tasks) == 2
        for leased in claimed.tasks:
            self._timed("Finish", c.Finish(leased.lease, 1, c.Completed("1")))


def read(store: PostgresStore) -> int:
    """How many rows sessions that have ended took out of tables, by scans of them and by their indexes."""
    taken = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_user_tables"
    return int(ask(store, f"{taken} where schemaname = current_schema")[0][0])


@pytest.mark.parametrize("parked", [30_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_plans_made_on_empty_tables_do_no_harm_when_they_have_grown(store: PostgresStore, parked: int) -> None:
    bench = Bench(store)
    bench.do(c.SetPool(Pool("main", "tight", limit=7, key_limit=1)))
    work = Work(bench)
    for number in range(3):
        work.round(number)
    park(store, parked)
    work.took.clear()
    for number in range(3, 23):
        work.round(number)
    bench.close()
    for name, took in work.took.items():
        print(f"{name:10} {1_000 * median(took):6.2f} ms")
    assert 0 < read(store) < parked
    if parked >= 1_000_000:
        assert median(work.took["Claim"]) < 0.05

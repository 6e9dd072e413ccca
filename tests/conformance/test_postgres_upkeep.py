"""What keeps tables small and quick for years: rows changed in their place, vacuums in time, plans that do not rot."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, postgres

WAIT_S = 10.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres.address(tmp_path))
    store.migrate()
    yield store
    store.close()


def ask(store: PostgresStore, statement: str, *values: Any) -> list[Any]:
    with closing(store.connect()) as db:
        cursor = db.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def updates(store: PostgresStore, table: str) -> tuple[int, int]:
    """How many rows of a table were changed, and how many of those in their place: a server tells it a moment later."""
    until = time.monotonic() + WAIT_S
    while True:
        found = ask(store, "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = $1::regclass", table)
        changed, in_place = found[0]
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

"""What the bench writes by raw SQL is what the schemas have now: a figure beside a broken floor is none."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest

from bench import seed
from bench.__main__ import MODULES, SUBJECTS
from bench.floor import Floor
from bench.ground import Raw
from bench.pg import PgFloor
from bench.pg_parked import copies
from stepwell.store.port import Store
from stepwell.store.postgres.store import PostgresStore
from stepwell.store.sqlite.store import SqliteStore
from tests.support import assert_lawful, postgres


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_can_be_measured(name: str) -> None:
    assert callable(import_module(f"bench.{MODULES.get(name, name)}").measure)


def on_sqlite(folder: Path) -> tuple[Raw, Store]:
    return Floor(folder / "floor"), SqliteStore(folder / "floor")


def on_postgres(folder: Path) -> tuple[Raw, Store]:
    address = postgres.address(folder)
    return PgFloor(address), PostgresStore(address)


@pytest.mark.parametrize("place", [on_sqlite, on_postgres])
def test_a_floor_writes_rows_as_the_schema_has_them(place: Callable[[Path], tuple[Raw, Store]], tmp_path: Path) -> None:
    floor, store = place(tmp_path)
    assert floor.one_row(2) > 0
    assert floor.group(2, 3) > 0
    assert floor.all_rows(2) > 0
    floor.close()
    with closing(store.reader()) as reader:
        assert [len(reader.entries(number)) for number in (1, 2, 3, 4)] == [6, 2, 2, 0]


def test_copies_of_a_parked_run_are_runs(tmp_path: Path) -> None:
    path, address = tmp_path / "seeded", postgres.address(tmp_path)
    waiting, _ = asyncio.run(seed.prototypes(path, steps=2))
    seed.copies(path, waiting, 5, label="copy")
    of, _ = asyncio.run(seed.prototypes(address, steps=2))
    with closing(PostgresStore(address).connect()) as db:
        copies(db, of, 5)
    for store in (SqliteStore(path), PostgresStore(address)):
        with closing(store.reader()) as reader:
            assert [run.status for run in reader.scan_runs()].count("waiting") == 6
        assert_lawful(store)

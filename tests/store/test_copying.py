"""A copy forgets no table and no column, whatever migrations add, and stands still as long as it has to."""

import sqlite3
from contextlib import closing
from pathlib import Path

from stepwell.store.copying import TABLES
from stepwell.store.postgres import copying
from stepwell.store.postgres.sql import sql
from stepwell.store.postgres.store import PostgresStore
from stepwell.store.sqlite.store import SqliteStore
from tests.support import postgres

KEPT = {table.name: set(table.columns) for table in TABLES}
#: Ledgers, each store has its own; lanes, unknown on the other side; what has no position yet, which a copy gives one;
#: who stamps; and a table that nothing writes to.
LEFT = {"migration", "app_migration", "lane", "unstamped", "stamper", "schedule"}


def test_every_table_of_sqlite_is_copied_or_named_here(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a")
    store.migrate()
    with closing(sqlite3.connect(store.path)) as db:
        names = {name for (name,) in db.execute("select name from sqlite_schema where type = 'table'")}
        assert {name for name in names if not name.startswith("sqlite_")} - LEFT == KEPT.keys()
        for name, columns in KEPT.items():
            assert {row[1] for row in db.execute(f"pragma table_info({name})")} == columns
        assert db.execute("select count(*) from schedule").fetchone() == (0,)


def test_every_table_of_postgresql_is_copied_or_named_here(tmp_path: Path) -> None:
    store = PostgresStore(postgres.address(tmp_path))
    store.migrate()
    with closing(store.connect()) as db:
        found: dict[str, set[str]] = {}
        given = "table_schema = current_schema() and is_generated = 'NEVER'"
        query = f"select table_name, column_name from information_schema.columns where {given}"
        for name, column in db.execute(query).fetchall():
            found.setdefault(name, set()).add(column)
    assert found.keys() - LEFT == KEPT.keys()
    assert {name: found[name] for name in KEPT} == KEPT
    for act in ("copy/lock", "copy/analyze"):
        assert KEPT.keys() <= set(sql(act).replace(",", "").split())


def test_a_source_may_stand_still_while_the_target_is_busy(tmp_path: Path) -> None:
    url = postgres.address(tmp_path)
    PostgresStore(url).migrate()
    store = PostgresStore(url, idle_ms=1_000)
    with copying.reading(store, alone=True) as source, closing(store.connect()) as db:
        db.execute("select pg_sleep(1.3)")
        assert source.head() == 0

"""The app's tables in copies and backups: their rows go along, into tables that the app makes on the other side."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell.functions.migrations import read_migrations
from stepwell.store.sqlite.store import SqliteStore
from tests.cli.moving import connected, filled
from tests.cli.support import Shop
from tests.support import postgres

APP = """
from pathlib import Path
from stepwell import App
app = App("shop", migrations=Path(__file__).parent / "migrations")
"""
SQLITE = """
create table item (id integer primary key autoincrement, parent integer references item (id), sold integer not null);
create table sale (item integer not null references item (id), at text, price real, data blob, "the text" text, twice
    integer generated always as (item * 2));
insert into item (id, sold) values (99, 0);
create trigger sold after insert on sale begin update item set sold = sold + 1 where id = new.item; end;
"""
POSTGRES = """
create table item (id bigint primary key generated always as identity, parent bigint references item (id),
    sold boolean not null);
create table sale (item bigint not null references item (id), at timestamptz, price numeric, data bytea,
    "the text" jsonb, twice bigint generated always as (item * 2) stored);
insert into item (sold) values (false);
create function sold() returns trigger language plpgsql as $$ begin update item set sold = false; return new; end $$;
create trigger sold after insert on sale for each row execute function sold();
"""
ITEMS = [(2, 7, 1), (7, None, 1), (8, 7, 0)]
SALES = [(7, "2026-01-02 03:04:05.678+00", 1.5, b"\0\xff\\", '{"a": "\\u00e9 \\\\N"}'), (2, None, None, None, None)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "shop").mkdir()
    return Shop(tmp_path / "shop")


def with_tables(shop: Shop, folder: Path) -> str:
    """A SQLite database with the tables of an app, whose code is in the shop's folder."""
    (shop.cwd / "migrations").mkdir()
    (shop.cwd / "goods.py").write_text(APP)
    (shop.cwd / "migrations" / "0001_goods.sqlite.sql").write_text(SQLITE)
    (shop.cwd / "migrations" / "0001_goods.postgres.sql").write_text(POSTGRES)
    old = filled(folder / "old.sqlite")
    store = SqliteStore(Path(old))
    store.migrate_app("shop", read_migrations(shop.cwd / "migrations", store.dialect))
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("delete from item")
        db.executemany("insert into item values (?, ?, ?)", ITEMS)
        db.execute("drop trigger sold")
        db.executemany('insert into sale (item, at, price, data, "the text") values (?, ?, ?, ?, ?)', SALES)
        trigger = SQLITE[SQLITE.index("create trigger") :].strip()
        db.execute(trigger)
    return old


def goods(url: str, schema: str = "") -> tuple[list[Any], list[Any]]:
    """What stands in the app's tables."""
    prefix = f'"{schema}".' if schema else ""
    with closing(connected(url)) as db:
        items = db.execute(f"select id, parent, sold from {prefix}item order by id").fetchall()
        sales = db.execute(
            f'select item, at, price, data, "the text", twice from {prefix}sale order by item'
        ).fetchall()
    return [(no, parent, int(sold)) for no, parent, sold in items], sales


def schema_of(url: str) -> str:
    """Where the app's tables are in a database of a test."""
    return f"{url.rpartition('search_path%3D')[2]}_app"


def test_the_tables_of_an_app_go_along(shop: Shop, tmp_path: Path) -> None:
    old, new, back = with_tables(shop, tmp_path), postgres.address(tmp_path), str(tmp_path / "back.sqlite")
    schema = schema_of(new)
    said = shop.refused("db", "copy", old, new)
    assert "the tables of app shop would stay behind" in said
    assert "--app" in said
    made = shop.json("db", "copy", old, new, "--app", "goods:app")
    assert made["app"] == {"item": 3, "sale": 2}
    items, sales = goods(new, schema)
    assert items == ITEMS
    assert [(item, price and float(price), data, twice) for item, _, price, data, _, twice in sales] == [
        (2, None, None, 4),
        (7, 1.5, SALES[0][3], 14),
    ]
    assert (sales[1][1].timestamp(), sales[1][4]) == (1767323045.678, {"a": "\u00e9 \\N"})
    with closing(psycopg.connect(new, autocommit=True)) as db:
        db.execute(f'set search_path = "{schema}"')
        assert db.execute("insert into item (sold) values (true) returning id").fetchall() == [(9,)]
        db.execute("insert into sale (item) values (9)")  # its trigger works again
        assert db.execute("select count(*) from item where sold").fetchall() == [(0,)]
    assert "stay behind" in shop.refused("db", "copy", new, back)
    shop.json("db", "copy", new, back, "--app", "goods:app")
    items, sales = goods(f"sqlite:///{back}")
    assert (len(items), len(sales), sales[1][2:4]) == (4, 3, (1.5, SALES[0][3]))
    assert "would stay behind" in shop.refused("db", "copy", old, postgres.address(tmp_path / "other"))
    assert shop.json("db", "copy", old, postgres.address(tmp_path / "bare"), "--without-app")["app"] == {}


def test_the_tables_of_an_app_are_backed_up(shop: Shop, tmp_path: Path) -> None:
    old, db, new = with_tables(shop, tmp_path), postgres.address(tmp_path / "db"), postgres.address(tmp_path / "new")
    shop.json("db", "copy", old, db, "--app", "goods:app")
    shop.json("db", "backup", "b", "--db", db)
    assert shop.json("db", "verify", "b")["ok"]
    assert "stay behind" in shop.refused("db", "restore", "b", "--db", new)
    shop.json("db", "restore", "b", "--db", new, "--app", "goods:app")
    assert goods(db, schema_of(db)) == goods(new, schema_of(new))
    assert "--app" in shop.refused("db", "restore", "b", "--db", "file")
    shop.json("db", "copy", "b", "file", "--app", "goods:app")
    assert goods(f"sqlite:///{shop.cwd}/file")[0] == ITEMS
    with closing(sqlite3.connect(shop.cwd / "b")) as file, file:
        file.execute("update stepwell_app_sale set price = 2 where item = 7")
    assert shop.json("db", "verify", "b", code=1)["damage"] == [
        "table app sale: its rows are not the 2 that were backed up"
    ]

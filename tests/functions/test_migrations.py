"""An app's own migrations: forward only, under the guard, with errors that name the file."""

from pathlib import Path

import pytest

from stepwell.functions.migrations import MAX_SCRIPT_BYTES, read_migrations
from stepwell.model import errors
from stepwell.store.port import Store
from tests.support import APP_STORES, open_store


@pytest.fixture(params=sorted(APP_STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(request.param, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "migrations"
    made.mkdir()
    return made


def apply(store: Store, folder: Path) -> list[int]:
    return store.migrate_app("shop", read_migrations(folder))


def tables(store: Store, sql: str) -> int:
    reader = store.reader()
    try:
        return len(reader.app.execute(sql, (), 10).rows)
    finally:
        reader.close()


def test_each_is_applied_once_in_order(store: Store, folder: Path) -> None:
    (folder / "0002_more.sql").write_text("insert into a values (2);\nalter table a rename to b;\ndrop table c;")
    (folder / "0001_a.sql").write_text(
        "create table a (x unique);\ncreate table c (id integer primary key autoincrement)"
    )
    (folder / "README").write_text("not a migration")
    assert apply(store, folder) == [1, 2]
    assert apply(store, folder) == []
    (folder / "0003_index.sql").write_text(
        "create index b_x on b (x); create view v as select x from b;\n"
        "create trigger t after insert on b begin delete from b where x = 0; end;\n"
        "create virtual table words using fts5 (word); insert into words values ('found');"
    )
    assert apply(store, folder) == [3]
    assert tables(store, "select x from v") == 1
    assert tables(store, "select word from words where words match 'found'") == 1
    assert store.migrate_app("other", []) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("create table run (a)", "run: that name is the kernel's"),
        ("create table RUN (a)", "RUN: that name is the kernel's"),
        ("create table stepwell_mine (a)", "that name is the kernel's"),
        ("create index mine on run (status)", "run: that name is the kernel's"),
        (
            "create table mine (a); create trigger t after insert on run begin select 1; end;",
            "that name is the kernel's",
        ),
        ("create view run_id as select 1", "that name is the kernel's"),
        ("drop table message", "message: that name is the kernel's"),
        ("drop index run_open", "that name is the kernel's"),
        ("alter table run add column mine", "run: that name is the kernel's"),
        ("insert into meta values ('x', 1)", "may not write meta"),
        ("create table copy as select * from run", "may not read run"),
        ("delete from sqlite_sequence", "sqlite_sequence"),
        ("create temp table mine (a)", "temporary"),
        ("pragma journal_mode = delete", "pragmas"),
        ("commit", "commit"),
        ("attach ':memory:' as x", "attach"),
        ("create table mine (a unique on conflict rollback)", "roll back"),
        ("create table mine (a); creat table other (a);", "creat table other"),
        ("create table mine (a); insert into mine values (1", "incomplete"),
    ],
)
def test_what_is_not_the_apps_business_is_refused_whole(store: Store, folder: Path, script: str, says: str) -> None:
    (folder / "0001_bad.sql").write_text(script)
    with pytest.raises(errors.Invalid, match="0001_bad of shop") as refused:
        apply(store, folder)
    assert says in refused.value.message
    (folder / "0001_bad.sql").write_text("create table mine (a)")
    assert apply(store, folder) == [1], "nothing of it stayed"


def test_an_applied_migration_is_not_edited_dropped_or_preceded(store: Store, folder: Path) -> None:
    (folder / "0002_a.sql").write_text("create table a (x)")
    apply(store, folder)
    (folder / "0001_late.sql").write_text("create table b (x)")
    with pytest.raises(errors.Invalid, match="comes before"):
        apply(store, folder)
    (folder / "0001_late.sql").unlink()
    (folder / "0002_a.sql").write_text("create table a (y)")
    with pytest.raises(errors.Invalid, match="changed after"):
        apply(store, folder)
    (folder / "0002_a.sql").unlink()
    with pytest.raises(errors.Invalid, match="not in its folder"):
        apply(store, folder)


@pytest.mark.parametrize("name", ["1_a.sql", "0000_a.sql", "0001.sql", "0001_a b.sql", "a.sql"])
def test_a_name_without_an_order_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("select 1")
    with pytest.raises(errors.Invalid, match="no name of a migration"):
        read_migrations(folder)


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="no folder"):
        read_migrations(tmp_path / "none")
    (folder / "0001_a.sql").write_bytes(b"\xff")
    with pytest.raises(errors.Invalid, match="cannot be read"):
        read_migrations(folder)
    (folder / "0001_a.sql").write_bytes(b" " * (MAX_SCRIPT_BYTES + 1))
    with pytest.raises(errors.TooLarge):
        read_migrations(folder)
    (folder / "0001_a.sql").write_text("")
    (folder / "0001_b.sql").write_text("")
    with pytest.raises(errors.Invalid, match="one number"):
        read_migrations(folder)

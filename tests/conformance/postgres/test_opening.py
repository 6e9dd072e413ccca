"""A database opened: what is there again, migrations that race, what is refused and in which words."""

import sys
from pathlib import Path

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.columns import ROWS, columns
from stepwell.store.postgres.sql import migrations
from stepwell.store.postgres.store import PostgresStore
from stepwell.worker.local import open_store
from tests.support import Bench, assert_lawful, postgres, snapshot
from tests.support.crowd import at_once
from tests.support.postgres import ask

LANES = 4


def test_everything_is_there_after_opening_again(store: PostgresStore) -> None:
    bench = Bench(store)
    lease = bench.turn(input='"' + "x" * 70_000 + '"').lease
    bench.record(lease, 1, StepCompleted())
    bench.do(c.Say(lease, 0, (("stdout", "hi"),)))
    before = snapshot(store)
    bench.close()
    again = Bench(store, clock=bench.clock, name="another")
    assert snapshot(store) == before
    assert again.record(lease, 1, StepCompleted()).first == 3, "a repeat gets the first answer"
    again.start("next")
    assert again.run("next").no > 1
    again.close()


def test_many_may_migrate_at_once_and_each_migration_is_applied_once(tmp_path: Path) -> None:
    stores = [PostgresStore(postgres.address(tmp_path)) for _ in range(LANES)]
    at_once(*(store.migrate for store in stores))
    stores[0].migrate()
    noted = ask(stores[0], "select no, name, length(hash) from migration order by no")
    assert noted == [(no, name, 64) for no, name, _ in migrations()]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update migration set hash = 'x' where no = 1", "not what migration 1 of this program makes"),
        ("insert into migration values (999, 'future', 'x', now())", "newer than this program"),
    ],
)
def test_a_foreign_schema_is_refused_and_left_alone(store: PostgresStore, statement: str, message: str) -> None:
    ask(store, statement)
    before = ask(store, "select * from migration order by no")
    with pytest.raises(Unavailable, match=message) as caught:
        store.migrate()
    assert caught.value.hint
    assert ask(store, "select * from migration order by no") == before


def test_addresses_are_refused_in_plain_words_and_without_the_password() -> None:
    with pytest.raises(Invalid, match="no address"):
        open_store("postgresql://host/db?nonsense=1", Settings())
    nobody = open_store("postgresql://me:secret@127.0.0.1:1/db?connect_timeout=1&pooled=true", Settings())
    assert nobody.url == "postgresql://127.0.0.1:1/db"
    for opens in (nobody.migrate, nobody.reader, lambda: nobody.session("lane")):
        with pytest.raises(Unavailable, match="cannot open") as caught:
            opens()
        assert "secret" not in str(caught.value)


def test_without_the_driver_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stepwell.store.postgres.store", None)
    with pytest.raises(Invalid, match="driver") as caught:
        open_store("postgresql://host/db", Settings())
    assert "stepwell[postgres]" in caught.value.hint


@pytest.mark.parametrize("row", ROWS)
def test_columns_are_the_fields(store: PostgresStore, row: str) -> None:
    given = "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and attgenerated = ''"
    named = ask(store, given + " order by attnum", row)
    assert [name for (name,) in named][row in ("task", "change") :] == columns(row)


def test_behind_a_pooler_nothing_is_prepared(tmp_path: Path) -> None:
    store = PostgresStore(postgres.address(tmp_path), pooled=True)
    store.migrate()
    session = store.session("lane")
    bench = Bench(store, session=session)
    bench.record(bench.turn().lease, 1, StepCompleted())
    assert session._link.db.execute("select count(*) from pg_prepared_statements").fetchall() == [(0,)]
    bench.close()
    assert_lawful(store)

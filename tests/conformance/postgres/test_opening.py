"""How a database is opened: addresses, the driver, a pooler; and columns that are the fields."""

import sys
from pathlib import Path

import pytest

from stepwell.model.entries import StepCompleted
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.columns import ROWS, columns
from stepwell.store.postgres.store import PostgresStore
from stepwell.worker.local import open_store
from tests.support import Bench, assert_lawful, postgres
from tests.support.postgres import ask


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

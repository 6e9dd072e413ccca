"""A file of SQLite: what is no database, and columns that are the fields."""

from contextlib import closing
from pathlib import Path

import pytest

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.columns import ROWS, columns
from stepwell.store.sqlite.store import SqliteStore


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("this is no database, but a letter to my aunt " * 50)
    with pytest.raises(Unavailable, match=r"s\.sqlite") as caught:
        SqliteStore(path).migrate()
    assert caught.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "s.sqlite")


@pytest.mark.parametrize("row", ROWS)
def test_columns_are_the_fields(store: SqliteStore, row: str) -> None:
    with closing(store.connect()) as db:
        named = [column[1] for column in db.execute(f'pragma table_info("{row}")')]
    numbered = row in ("task", "change")
    assert sorted(named[1:] if numbered else named) == sorted(columns(row)), "these have a number of their own, too"

"""The state of a SQLite file, which is read as it is."""

import sqlite3
from pathlib import Path

from stepwell.model.errors import Unavailable
from stepwell.store.sqlite.files import need_file, opened
from stepwell.store.sqlite.sql import migrations, sql
from stepwell.store.sqlite.store import read_ledger
from stepwell.store.status import Schema, Status, TableSize


def status_of(path: Path) -> Status:
    """Raises `Unknown` (no file), `Invalid` (not a database of Stepwell) and `Unavailable` (unreadable)."""
    need_file(path)
    with opened(path) as db:
        names = [name for (name,) in db.execute(sql("copy/app_tables")) if not name.startswith("sqlite_")]
        tables = [TableSize(name, _count(db, name)) for name in names]
        return Status(str(path), f"SQLite {sqlite3.sqlite_version}", path.stat().st_size, _schema(db, path), tables)


def _count(db: sqlite3.Connection, name: str) -> int:
    quoted = '"' + name.replace('"', '""') + '"'
    return int(db.execute(f"select count(*) from {quoted}").fetchone()[0])  # noqa: S608 - quoted


def _schema(db: sqlite3.Connection, path: Path) -> Schema:
    try:
        applied = sorted(read_ledger(db, path))
    except Unavailable as foreign:
        return Schema([no for (no,) in db.execute("select no from migration order by no")], [], foreign.message)
    return Schema(applied, [name for no, name, _ in migrations() if no not in applied])

"""The state of a PostgreSQL database: what its catalogue and its statistics tell."""

from contextlib import closing

from stepwell.model.errors import Unavailable
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.copying import telling
from stepwell.store.postgres.damage import bytes_of
from stepwell.store.postgres.ledger import has_ledger, hashes, need_ours, read, refuse_foreign
from stepwell.store.postgres.sql import migrations, sql
from stepwell.store.postgres.store import PostgresStore
from stepwell.store.status import Oldest, Schema, Status, TableSize


def status_of(store: PostgresStore) -> Status:
    """Raises `Invalid` (not a database of Stepwell) and `Unavailable` (not reachable)."""
    with closing(store.opened()) as db, telling(store.url):
        need_ours(db, store.url)
        oldest = db.execute(sql("status/oldest")).fetchall()
        return Status(
            store.url,
            f"PostgreSQL {db.execute(sql('status/version')).fetchall()[0][0]}",
            bytes_of(db),
            _schema(db, store.url),
            [TableSize(*row) for row in db.execute(sql("status/tables")).fetchall()],
            len(db.execute(sql("copy/lanes")).fetchall()),
            int(db.execute(sql("status/connections")).fetchall()[0][0]),
            Oldest(*oldest[0]) if oldest else None,
        )


def _schema(db: Db, url: str) -> Schema:
    known = read(db, url)
    applied = sorted(hashes(known))
    missing = [name for no, name, _ in migrations() if no not in known]
    try:
        refuse_foreign(known, url)
    except Unavailable as foreign:
        return Schema(applied, missing, foreign.message)
    return Schema(applied, missing)


def is_new(store: PostgresStore) -> bool:
    """Whether there is nothing of Stepwell in the schema."""
    with closing(store.opened()) as db, telling(store.url):
        return not has_ledger(db)

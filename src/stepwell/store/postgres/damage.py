"""What can be wrong with a PostgreSQL database before any law is looked at."""

from stepwell.store.copying import NUMBERED
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.sql import sql


def damage_of(db: Db) -> list[str]:
    """Indexes that are not valid, and sequences that would give a number again. Raises psycopg's errors."""
    found = [f"index {name} is not valid: reindex it" for (name,) in db.execute(sql("verify/indexes")).fetchall()]
    used: dict[str, int] = dict(db.execute(sql("verify/numbers")).fetchall())
    given: dict[str, int] = dict(db.execute(sql("copy/numbers")).fetchall())  # after them: both rise meanwhile
    return found + [
        f"the sequence of {name} stands at {given[name]}, and number {used[name]} is in use: raise it"
        for name in NUMBERED
        if given[name] < used[name]
    ]


def bytes_of(db: Db) -> int:
    """What the schema takes on the server's disk, indexes included."""
    return int(db.execute(sql("verify/bytes")).fetchall()[0][0])

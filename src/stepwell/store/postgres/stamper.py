"""Gives changes their positions after the commit (source: KERNEL, change log).

The numbers of transactions are not in the order of their commits. But below the oldest transaction under way nothing
can come any more, so there a change's position is its rank among the numbers of its scope: the same, whoever counts.
"""

import contextlib
import logging

import psycopg
from psycopg.sql import Literal

from stepwell.model.errors import Unavailable
from stepwell.store.port import Stamped
from stepwell.store.postgres.connection import Connect, Db
from stepwell.store.postgres.sql import sql

log = logging.getLogger("stepwell.postgres")
#: Whoever does not stamp for so long, though there is something to do, loses the duty.
DUTY_MS = 5_000
LAST, PAGE = (1 << 63) - 1, 10_000
#: A transaction that holds the log back for so long is named in the log, and again each time it has got as old again.
TOLD_MS = 60_000
AWAY_HINT = "Check that the server runs and takes connections; changes get their positions when it does."
HELD_BACK = (
    "the change log is held back for %d s by %s: runs go on, but whoever follows changes waits until that transaction"
    " ends; pg_stat_activity (backend_xid) and pg_prepared_xacts show it"
)


class PostgresStamper:
    """One connection. A turn is one transaction: cut off anywhere, it did all or nothing."""

    def __init__(self, connect: Connect, holder: str) -> None:
        self._connect, self._holder = connect, holder
        self._db: Db | None = None
        self._told_ms = 0

    def stamp(self, limit: int) -> Stamped:
        """See the port. What is lost of these commits in a crash of the server comes out the same when done again."""
        try:
            if self._db is None or self._db.closed:
                self._db = self._connect()
            return self._turn(self._db, limit)
        except psycopg.Error as error:
            self._let_go()
            raise Unavailable(f"cannot stamp changes: {str(error).strip()}", hint=AWAY_HINT) from error

    def _turn(self, db: Db, limit: int) -> Stamped:
        last = self._take(db)
        if last is None:
            db.execute("rollback", prepare=False)
            held_ms = db.execute(sql("stamp/held"), (DUTY_MS,)).fetchall()[0][0]
            return Stamped(held_ms=max(1, held_ms))  # somebody is in the middle of it, and may not come to its end
        count, waits_ms = db.execute(sql("stamp/move"), (last, None, limit, self._holder, DUTY_MS)).fetchall()[0]
        db.execute("commit" if count else "rollback", prepare=False)
        self._tell(db, waits_ms)
        return Stamped(count, count >= limit, waits_ms)

    def _take(self, db: Db) -> int | None:
        """Begins, and locks the stamper's row: the last transaction that is done; None: somebody else has the duty."""
        taken = sql("stamp/take").replace("$1", Literal(self._holder).as_string(db)).replace("$2", str(DUTY_MS))
        begin = "begin isolation level read committed; set local synchronous_commit = off"
        cursor = db.execute(f"{begin};\n{taken}", prepare=False)
        while cursor.nextset():
            pass
        rows = cursor.fetchall()
        return int(rows[0][0]) if rows else None

    def _tell(self, db: Db, waits_ms: int | None) -> None:
        """Says who holds the log back: at a minute, at two, at four, and so on."""
        if waits_ms is None:
            self._told_ms = 0
        elif waits_ms >= max(TOLD_MS, 2 * self._told_ms):
            self._told_ms = waits_ms
            rows = db.execute(sql("stamp/oldest")).fetchall()
            log.warning(HELD_BACK, waits_ms / 1_000, rows[0][0] if rows else "one that has just ended")

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(psycopg.Error):
                self._db.execute(sql("stamp/give"), (self._holder,))
        self._let_go()


def settle(db: Db) -> None:
    """Begins anew below this server's numbers, where rows come from another one whose numbers were higher.

    So it is with a dump that was restored: what had no position there was committed, all of it, and comes first.
    """
    if not _is_foreign(db):
        return
    with db.transaction():
        last = db.execute(sql("stamp/lock")).fetchall()[0][0]
        if _is_foreign(db):
            log.warning("the change log comes from another server: it goes on with the numbers of this one")
            while db.execute(sql("stamp/move"), (last, LAST, PAGE, "", 0)).fetchall()[0][0]:
                pass
            db.execute(sql("stamp/restart"))


def _is_foreign(db: Db) -> bool:
    return bool(db.execute(sql("stamp/is_foreign")).fetchall()[0][0])

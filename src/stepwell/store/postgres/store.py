"""Opening a PostgreSQL database: its version, its migrations, and the address without its secrets."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import psycopg
from psycopg.conninfo import conninfo_to_dict

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.port import AppMigration
from stepwell.store.postgres.app_tables import NOT_YET
from stepwell.store.postgres.connection import Db, connect
from stepwell.store.postgres.reader import PostgresReader
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.sql import migrations, sql

log = logging.getLogger("stepwell.postgres")
OLDEST, NEWEST = 14, 18
#: How often others' commits are looked for at the most.
LOOK_S = 0.1
MIGRATE_TRIES = 5
REACHABLE = "Check the address, the password, and that the server runs and takes connections."
ADDRESS = "Write it as postgresql://USER@HOST:5432/DATABASE; ?pooled=true behind a pooler in transaction mode."


class PostgresStore:
    """One database, or one schema of it (`options=-csearch_path=NAME`). `pooled`: see `connection.connect`."""

    def __init__(self, conninfo: str, *, pooled: bool = False, monotonic: Callable[[], float] = time.monotonic) -> None:
        try:
            self._address = conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            raise Invalid(f"this is no address of a PostgreSQL database: {error}", hint=ADDRESS) from error
        self._conninfo, self._pooled, self._monotonic = conninfo, pooled, monotonic

    @property
    def url(self) -> str:
        """Where it is; the user and the password are left out."""
        part = {"host": "", "port": 5432, "dbname": "", **self._address}
        return f"postgresql://{part['host']}:{part['port']}/{part['dbname']}"

    def connect(self) -> Db:
        """Raises psycopg's errors."""
        return connect(self._conninfo, pooled=self._pooled)

    def _opened(self) -> Db:
        try:
            db = self.connect()
        except psycopg.Error as error:
            raise Unavailable(f"cannot open {self.url}: {str(error).strip()}", hint=REACHABLE) from error
        major = db.info.server_version // 10_000
        if major < OLDEST:
            db.close()
            raise Unavailable(f"PostgreSQL {major} is too old", hint=f"Use PostgreSQL {OLDEST} or newer.")
        if major > NEWEST:
            log.warning("PostgreSQL %d is newer than what this version was tested with, %d", major, NEWEST)
        return db

    def migrate(self) -> None:
        """Applies what is missing, all in one transaction; who comes second waits, and finds it done."""
        with closing(self._opened()) as db:
            try:
                self._migrate(db)
            except psycopg.Error as error:
                hint = "Check that the user may create tables in the schema; a DBA may run the scripts in its stead."
                raise Unavailable(f"cannot bring {self.url} up to date: {str(error).strip()}", hint=hint) from error

    def _migrate(self, db: Db) -> None:
        scripts = migrations()
        if db.execute(sql("ledger/exists")).fetchall()[0][0]:
            applied = _applied(db)
            self._refuse_foreign(applied)
            if len(applied) == len(scripts):
                return
        _make_ledger(db)
        with db.transaction():
            db.execute(sql("ledger/lock"))
            applied = _applied(db)
            self._refuse_foreign(applied)
            for no, name, script in scripts:
                if no not in applied:
                    db.execute(script, prepare=False)
                    db.execute(sql("ledger/add"), (no, name, _hash(script)))

    def _refuse_foreign(self, applied: dict[int, str]) -> None:
        known = {no: _hash(script) for no, _, script in migrations()}
        for no, digest in applied.items():
            if known.get(no) != digest:
                what = (
                    "newer than this program" if no not in known else f"not what migration {no} of this program makes"
                )
                raise Unavailable(
                    f"the schema of {self.url} is {what}",
                    hint="Run the version of Stepwell that wrote it, or restore a backup made before.",
                )

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        if migrations:
            raise Invalid(f"{app} {NOT_YET}", hint="Use sqlite:///FILE for an app that has tables of its own.")
        return []

    def session(self, lane: str) -> PostgresSession:
        self._opened().close()
        return PostgresSession(self.connect, lane)

    def reader(self) -> PostgresReader:
        try:
            return PostgresReader(self.connect)
        except psycopg.Error as error:
            raise Unavailable(f"cannot open {self.url}: {str(error).strip()}", hint=REACHABLE) from error

    def version(self) -> int:
        """Nothing in memory tells what others commit, so it is another number every `LOOK_S`."""
        return int(self._monotonic() / LOOK_S)

    def close(self) -> None:
        """Every connection belongs to a session or to a reader."""


#: What the one who comes second hears: of the table's name, of its type, or of a row of the catalogue.
_MADE_AT_ONCE = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)


def _applied(db: Db) -> dict[int, str]:
    return dict(db.execute(sql("ledger/applied")).fetchall())


def _make_ledger(db: Db) -> None:
    """Two who create a table at once may both find that it is not there: the second one is refused, and looks again."""
    for _ in range(MIGRATE_TRIES):
        try:
            db.execute(sql("ledger/create"))
        except _MADE_AT_ONCE:
            continue
        return


def _hash(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()

"""Opening a PostgreSQL database: its version, its migrations, and the address without its secrets."""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.port import AppMigration
from stepwell.store.postgres import ledger
from stepwell.store.postgres.app_schema import apply_migrations
from stepwell.store.postgres.bell import Bell, Say, Told
from stepwell.store.postgres.connection import Db, connect, cut
from stepwell.store.postgres.reader import PostgresReader
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.stamper import PostgresStamper, settle

log = logging.getLogger("stepwell.postgres")
OLDEST, NEWEST = 14, 18
#: How often others' commits are looked for, and how often where they are heard of, since a hint may be lost.
LOOK_S, HEARD_S = 0.1, 1.0
_SEARCH_PATH = re.compile(r"search_path=\\?([^\s,\\]+)")
#: How long a transaction may stand still: less than the shortest lease, longer than a mutation may take.
IDLE_MS = 9_000
REACHABLE = "Check the address, the password, and that the server runs and takes connections."
ADDRESS = "Write it as postgresql://USER@HOST:5432/DATABASE; ?pooled=true behind a pooler in transaction mode."


def _need_clear(conninfo: str, parts: dict[str, Any]) -> None:
    """Refuses an address that libpq reads, but not as it was meant: it would name part of a password as the host's."""
    _, _, path = conninfo.partition("://")[2].partition("?")[0].partition("/")
    ports = str(parts.get("port", "")).split(",")
    if "@" in path or not all(port.isdigit() or not port for port in ports):
        what = "a password with one of : / ? # @ in it has to be percent-encoded"
        raise Invalid(f"this is no address of a PostgreSQL database: {what}", hint=ADDRESS)


class PostgresStore:
    """One database, or one schema of it (`options=-csearch_path=NAME`). `pooled`, `idle_ms`: see `connection.connect`.

    A process that is stopped in a transaction would hold up all others for as long: so its transaction ends then.
    """

    dialect = "postgres"

    def __init__(
        self,
        conninfo: str,
        *,
        pooled: bool = False,
        idle_ms: int = IDLE_MS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._address = conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            what = str(error).partition(' "')[0].removesuffix(":")  # what it quotes may be part of a password
            raise Invalid(f"this is no address of a PostgreSQL database: {what}", hint=ADDRESS) from None
        _need_clear(conninfo, self._address)
        self._conninfo, self._pooled, self._idle_ms, self._monotonic = conninfo, pooled, idle_ms, monotonic
        self._connections: WeakSet[Db] = WeakSet()
        self._lock, self._is_cut = threading.Lock(), False
        self._bells: list[Bell] = []

    many_lanes = True

    @property
    def url(self) -> str:
        """Where it is; the user and the password are left out."""
        part = {"host": "", "port": 5432, "dbname": "", **self._address}
        return f"postgresql://{part['host']}:{part['port']}/{part['dbname']}"

    @property
    def schema(self) -> str:
        """The schema that the address names, or what it is without: nobody is asked."""
        named = _SEARCH_PATH.search(str(self._address.get("options", "")))
        return named[1].strip('"') if named else "public"

    def connect(self, lane: str = "") -> Db:
        """`lane`: which one it belongs to. Raises psycopg's errors."""
        self._need_uncut()
        return connect(self._conninfo, self._keep, pooled=self._pooled, idle_ms=self._idle_ms, lane=lane)

    def _keep(self, db: Db) -> None:
        """From here on `cut` reaches it."""
        with self._lock:
            self._need_uncut()
            self._connections.add(db)

    def _need_uncut(self) -> None:
        if self._is_cut:
            raise psycopg.OperationalError("the store is being closed")

    def opened(self) -> Db:
        """A connection, or `Unavailable`: the server is not reachable, or too old."""
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

    def exists(self) -> bool:
        with closing(self.opened()) as db:
            return ledger.has_ledger(db)

    def migrate(self) -> None:
        """Applies what is missing, all in one transaction; who comes second waits, and finds it done."""
        self.migrated()

    def migrated(self, *, copying: bool = False) -> list[str]:
        """The same; answers the names of what it applied. `copying`: a copy that broke off is no hindrance."""
        with closing(self.opened()) as db:
            try:
                applied = ledger.migrate(db, self.url, copying=copying)
                if not copying:
                    settle(db)
            except psycopg.OperationalError as error:
                raise Unavailable(f"cannot reach {self.url}: {str(error).strip()}", hint=REACHABLE) from error
            except psycopg.Error as error:
                hint = "The user has to own the tables, or a DBA runs what `stepwell db migrate --print` writes."
                raise Unavailable(f"cannot bring {self.url} up to date: {str(error).strip()}", hint=hint) from error
            return applied

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        with closing(self.opened()) as db:
            return apply_migrations(db, app, migrations)

    def session(self, lane: str) -> PostgresSession:
        try:
            return PostgresSession(partial(self.connect, lane), lane, idle_ms=self._idle_ms if self._pooled else None)
        except psycopg.Error as error:
            raise Unavailable(f"cannot open {self.url}: {str(error).strip()}", hint=REACHABLE) from error

    def reader(self) -> PostgresReader:
        try:
            return PostgresReader(self.connect)
        except psycopg.Error as error:
            raise Unavailable(f"cannot open {self.url}: {str(error).strip()}", hint=REACHABLE) from error

    def stamper(self, holder: str) -> PostgresStamper:
        return PostgresStamper(self.connect, holder)

    def listen(self, told: Told, say: Say) -> Callable[[], None]:
        self._bells.append(Bell(self.connect, told, say, listens=not self._pooled))
        return self._bells[-1].ring

    def version(self) -> int:
        """Nothing in memory tells what others commit, so it is another number now and then."""
        return int(self._monotonic() / (HEARD_S if self.hears else LOOK_S))

    @property
    def hears(self) -> bool:
        """Whether others' commits are told here as they happen."""
        return bool(self._bells) and all(bell.hears for bell in self._bells)

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            connections = list(self._connections)
        for db in connections:
            cut(db)

    def close(self) -> None:
        """Ends the bells; every other connection belongs to a session or to a reader."""
        while self._bells:
            self._bells.pop().close()

"""Opening a SQLite file: settings of the connection, and migrations."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.port import AppMigration
from stepwell.store.sqlite.app_schema import apply_migrations
from stepwell.store.sqlite.reader import SqliteReader
from stepwell.store.sqlite.script import exclusive, statements
from stepwell.store.sqlite.session import SqliteSession
from stepwell.store.sqlite.sql import migrations, sql
from stepwell.store.sqlite.turns import TurnLock

WRITABLE = "Check that the file is a SQLite database, and that its folder is writable and on a local disk."
#: `->>` and `strict` tables need it.
OLDEST_SQLITE = (3, 38, 0)


class SqliteStore:
    """One file. `sync` full survives a power cut; normal survives a crash of the process only."""

    dialect = "sqlite"

    def __init__(self, path: str | Path, *, sync: str = "full", busy_ms: int = 10_000) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise Unavailable(
                f"SQLite {sqlite3.sqlite_version} is too old",
                hint=f"Use a Python built with SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer.",
            )
        self.path = Path(path)
        self._sync, self._busy_ms = sync, busy_ms
        if not self.path.parent.is_dir():
            raise Invalid(f"no folder {self.path.parent}", hint="Create it, or name a file in a folder that exists.")
        self._watch: sqlite3.Connection | None = None

    many_lanes = False

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def connect(self) -> sqlite3.Connection:
        """A connection as every session and reader uses it."""
        try:
            connection = sqlite3.connect(
                self.path, isolation_level=None, cached_statements=512, check_same_thread=False
            )
            connection.execute(f"pragma busy_timeout = {self._busy_ms}")
            _use_wal(connection, self._busy_ms)
            connection.execute(f"pragma synchronous = {self._sync}")
            connection.execute("pragma cache_size = -65536")
            connection.execute("pragma temp_store = memory")
        except sqlite3.Error as error:
            raise Unavailable(
                f"cannot open {self.path}: {error}",
                hint=WRITABLE,
            ) from error
        return connection

    def exists(self) -> bool:
        return self.path.exists()

    def migrate(self) -> None:
        """Applies what is missing, each migration in a transaction of its own, with its hash in the ledger."""
        with closing(self.connect()) as connection:
            try:
                applied = read_ledger(connection, self.path)
                for no, name, script in migrations():
                    if no not in applied:
                        _apply(connection, no, name, script)
            except sqlite3.Error as error:
                raise Unavailable(f"cannot bring {self.path} up to date: {error}", hint=WRITABLE) from error

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        with closing(self.connect()) as connection:
            return apply_migrations(connection, app, migrations)

    def session(self, lane: str) -> SqliteSession:
        return SqliteSession(self.connect, TurnLock(Path(f"{self.path}.lock"), wait_s=self._busy_ms / 1_000), lane)

    def reader(self) -> SqliteReader:
        return SqliteReader(self.connect())

    def stamper(self, holder: str) -> None:
        """There is one writer at a time, so a change has its position when it is committed."""

    def listen(self, told: Callable[[str], None], say: Callable[[], Sequence[str]]) -> None:
        """Nobody is told: `version` costs no more than a look at memory."""

    def version(self) -> int:
        """SQLite's own number for what other connections committed."""
        if self._watch is None:
            self._watch = self.connect()
        return int(self._watch.execute("pragma data_version").fetchone()[0])

    def cut(self) -> None:
        """There is no server to wait for."""

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _use_wal(connection: sqlite3.Connection, busy_ms: int) -> None:
    """Two who make a file at once exclude each other here, and SQLite's own waiting does not cover this change."""
    deadline = monotonic() + busy_ms / 1_000
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(0.005)
        else:
            return


def read_ledger(connection: sqlite3.Connection, path: Path) -> dict[int, str]:
    """The migrations that a database has had, with their hashes. Raises `Unavailable` for one that is not ours."""
    applied = _applied(connection)
    _refuse_foreign(path, applied, {no: _hash(script) for no, _, script in migrations()})
    return applied


def _applied(connection: sqlite3.Connection) -> dict[int, str]:
    """The ledger. A file that is up to date is only read, so that looking at it needs no turn at writing."""
    if connection.execute(sql("ledger/exists")).fetchone() is None:
        return {}
    return dict(connection.execute(sql("ledger/applied")))


def _hash(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _refuse_foreign(path: Path, applied: dict[int, str], known: dict[int, str]) -> None:
    for no, digest in applied.items():
        if known.get(no) != digest:
            what = "newer than this program" if no not in known else f"not what migration {no} of this program makes"
            raise Unavailable(
                f"the schema of {path} is {what}",
                hint="Run the version of Stepwell that wrote it, or restore a backup made before.",
            )


def _apply(connection: sqlite3.Connection, no: int, name: str, script: str) -> None:
    with exclusive(connection):
        connection.execute(sql("ledger/create"))
        if connection.execute(sql("ledger/has"), (no,)).fetchone() is None:
            for statement in statements(script):
                connection.execute(statement)
            connection.execute(sql("ledger/add"), (no, name, _hash(script)))

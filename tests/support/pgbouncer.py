"""A throw-away pgbouncer in transaction mode, in front of a throw-away PostgreSQL; it ends with the test process.

It is the one in the PATH, or the one that `make test` has unpacked (`scripts/unpack`). Its settings are those that it
comes with, so what the store must not rely on is refused here as it is anywhere.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support import postgres
from tests.support.daemon import Daemon

UNPACKED = Path(__file__).parents[2] / "build" / "pgbouncer"
PORT = 6432
CONFIG = """\
[databases]
* = host={host} user=test
[pgbouncer]
listen_port = {port}
unix_socket_dir = {folder}
pool_mode = transaction
auth_type = any
max_client_conn = 1000
default_pool_size = {size}
server_login_retry = 0.2
query_wait_timeout = {wait_s}
server_check_delay = 0
"""


class Pooler:
    """In front of all databases of a server, with `size` connections to each at the most.

    Whoever has waited for a connection for `wait_s` is refused.
    """

    def __init__(self, conninfo: str, *, size: int = 20, wait_s: int = 120) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stepwell-pooler-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        host = conninfo_to_dict(conninfo)["host"]
        (self.folder / "ini").write_text(
            CONFIG.format(host=host, port=PORT, folder=self.folder, size=size, wait_s=wait_s)
        )
        self._server = conninfo
        self._start()
        atexit.register(self.close)

    def url(self, database: str = "postgres") -> str:
        """The address of a database behind it, for Stepwell."""
        return f"postgresql://test@/{database}?host={quote(str(self.folder), safe='')}&port={PORT}&pooled=true"

    def database(self, folder: Path) -> str:
        """The address of a database of its own: the same folder again is the same database."""
        name = "t" + sha256(str(folder).encode()).hexdigest()[:16]
        with psycopg.connect(self._server, autocommit=True) as db, suppress(psycopg.errors.DuplicateDatabase):
            db.execute(f"create database {name}".encode())
        return self.url(name)

    def _start(self) -> None:
        program, user = self._program()
        paths = os.pathsep.join(map(str, self.folder.glob("lib/*")))
        self._daemon = Daemon(
            str(program),
            str(self.folder / "ini"),
            conninfo=f"host={self.folder} port={PORT} user=test dbname=postgres",
            log=self.folder / "log",
            signal="KILL",
            user=user,
            env={**os.environ, **({"LD_LIBRARY_PATH": paths} if paths else {})},
        )

    def _program(self) -> tuple[Path, str | None]:
        """It refuses to run as root: then it is `nobody`, who may not see where this tree is, so it gets a copy."""
        user = "nobody" if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(self.folder, user)
            self.folder.chmod(0o755)
        if (installed := shutil.which("pgbouncer")) is not None:
            return Path(installed), user
        program = UNPACKED / "usr/sbin/pgbouncer"
        assert program.exists(), "there is no pgbouncer: `make test` brings one, or install it"
        for folder in UNPACKED.glob("usr/lib/*-linux-*"):
            shutil.copytree(folder, self.folder / "lib" / folder.name, symlinks=True)
        return Path(shutil.copy(program, self.folder)), user

    def close(self) -> None:
        """Ends it at once; every connection is cut."""
        self._daemon.end()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def pooler() -> Pooler:
    """This process's pooler, in front of its shared server."""
    return Pooler(postgres.server(), size=3)

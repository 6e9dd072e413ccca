"""A PostgreSQL server to measure on: its own, durable as a server comes, on the bench's disk."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.floor import DATA, NOW
from bench.report import Budget, at_least
from bench.rig import Rig
from stepwell.model.rows import Change, Entry
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.sql import sql, together
from stepwell.store.postgres.store import PostgresStore
from tests.support.postgres import Server

#: As an operator would set them on 2 cores and 24 GiB; all that makes a commit durable is on.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
}
TOLD = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
ENTRIES = """insert into entry select * from unnest(
    $1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[])"""
STEP = together(("flush/insert_entry", "flush/insert_change"))


class OnPostgres:
    """A schema of its own for each measure, all on one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        host = conninfo_to_dict(server.conninfo)["host"]
        self._host = quote(str(host), safe="")
        with closing(psycopg.connect(server.conninfo)) as db:
            self.about = ", ".join(f"{name} {_shown(db, name)}" for name in TOLD)

    def budget(self, what: str) -> Budget | None:
        return at_least(15_000) if what == "steps" else None

    def url(self, name: str) -> str:
        """An empty schema."""
        schema = name.replace("-", "_")
        with psycopg.connect(self.server.conninfo, autocommit=True) as db:
            db.execute(f"drop schema if exists {schema} cascade".encode())
            db.execute(f"create schema {schema}".encode())
        return f"postgresql://test@/postgres?host={self._host}&options={quote(f'-csearch_path={schema}')}"

    def database(self, name: str) -> str:
        """An empty database, for whoever wants one of its own."""
        with psycopg.connect(self.server.conninfo, autocommit=True) as db:
            db.execute(f"create database {name}".encode())
        return f"postgresql://test@/{name}?host={self._host}"

    def floor(self, name: str) -> "PgFloor":
        return PgFloor(self.url(name))


@contextmanager
def served(rig: Rig) -> Iterator[OnPostgres]:
    """The server, while it is wanted. It may run as another user, who has to reach its folder."""
    rig.folder.chmod(0o711)
    server = Server(rig.fresh("server").parent, **SETTINGS)
    try:
        yield OnPostgres(server)
    finally:
        server.close()


def _shown(db: Db, name: str) -> str:
    row = db.execute(f"show {name}".encode()).fetchone()
    return str(row[0]) if row else ""


class PgFloor:
    """The same rows by psycopg alone, on the engine's own connection. Every method answers seconds."""

    def __init__(self, url: str) -> None:
        store = PostgresStore(url)
        store.migrate()
        self._db = store.connect()
        self._lane = sql("lane/begin").replace("$1", "'lane_floor'")
        self._seq = 0

    def close(self) -> None:
        self._db.close()

    def one_row(self, commits: int) -> float:
        """One entry a commit, in one statement that is its own transaction: one round trip."""
        return self.group(commits, runs=1)

    def group(self, commits: int, runs: int = 100) -> float:
        """An entry for each of `runs` runs in one statement, over unnest."""
        started = time.perf_counter()
        for _ in range(commits):
            entries = zip(*map(msgspec.structs.astuple, self._entries(runs)), strict=True)
            self._db.execute(ENTRIES, [list(column) for column in entries])
        return time.perf_counter() - started

    def all_rows(self, commits: int) -> float:
        """One commit of entry, change and lane in three round trips."""
        encode = msgspec.json.encode
        change = encode([Change("main", 0, NOW, '{"runs":[[1,3,3]]}')]).decode()
        started = time.perf_counter()
        for _ in range(commits):
            self._db.execute(f"begin; {self._lane}", prepare=False)
            self._db.execute(STEP, [encode(self._entries(1)).decode(), change])
            self._db.execute("commit", prepare=False)
        return time.perf_counter() - started

    def _entries(self, runs: int) -> list[Entry]:
        seq = self._seq = self._seq + 1
        return [Entry(no, seq, "step.completed", f"main/step#{seq}", seq, 1, NOW, DATA) for no in range(1, runs + 1)]

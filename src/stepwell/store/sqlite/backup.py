"""Copies of a database: made while it is written, verified, and put in place (source: spec codex-flows 4.9).

A copy is one file, without -wal and -shm beside it. SQLite makes it, under its own locks; a file in place is changed
only in one transaction of SQLite, or appears with all that is in it.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from stepwell.model.errors import Exists, Invalid, Unavailable, Unknown
from stepwell.store.port import Reader
from stepwell.store.sqlite.reader import SqliteReader
from stepwell.store.sqlite.sql import migrations
from stepwell.store.sqlite.store import SqliteStore, read_ledger

#: Pages copied between two reports of progress, and damages that are named.
STEP = 4_096
NAMED = 100
BUSY_MS = 10_000
OURS = "Name the file that `stepwell db backup` wrote, or a database that `stepwell serve` made."
SIDES = ("-wal", "-shm", "-journal")
Progress = Callable[[int, int], None]
#: What breaks the laws in a database.
Examine = Callable[[Reader], Iterable[str]]


class Verified(Struct, frozen=True):
    """What a look at a file found. `damage` is SQLite's own; `offences` are against the laws."""

    path: str
    bytes: int
    migrations: list[int]
    damage: list[str]
    offences: list[str]

    @property
    def ok(self) -> bool:
        return not self.damage and not self.offences


def no_progress(_: int, __: int) -> None:
    """Tells nobody."""


# ── back up ──────────────────────────────────────────────────────────────────────────────────────────────────────


def backup(source: Path, target: Path, *, force: bool = False, progress: Progress = no_progress) -> int:
    """Copies a database as it is now, with whoever writes to it; answers the bytes. Durable when it returns.

    Everything that was committed before the call is in it. `progress` gets pages done and pages in all. Raises
    `Unknown` (no source), `Exists` (target, without `force`), `Invalid` (not a database of Stepwell), `Unavailable`.
    """
    _need_file(source)
    if not force and target.exists():
        raise _exists(target)
    if target.exists() and target.samefile(source):
        raise Invalid(f"{target} is the database itself", hint="Name another file.")
    with _opened(source) as db, _new_file(target) as part:
        _copy(db, part, progress)
        size = part.stat().st_size
        _publish(part, target, force=force)
    return size


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A file beside `target` that is not left behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        for side in ("", *SIDES):
            part.with_name(part.name + side).unlink(missing_ok=True)


def _copy(db: sqlite3.Connection, part: Path, progress: Progress) -> None:
    """Fills a file that nobody else knows with what `db` holds at one moment."""
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            copy.execute("pragma synchronous = off")
            # Its own transaction keeps `db` at one moment: else the copy would begin anew whenever somebody commits.
            db.execute("begin")
            db.execute("select count(*) from sqlite_schema").fetchone()
            db.backup(copy, pages=STEP, progress=lambda _, left, total: progress(total - left, total))
            db.execute("rollback")
            copy.execute("pragma journal_mode = delete")
    except sqlite3.Error as error:
        raise _cannot("copy to", part.parent, error) from error
    _sync(part)


def _publish(part: Path, target: Path, *, force: bool) -> None:
    if force:
        part.replace(target)
    else:
        try:
            os.link(part, target)  # unlike a rename, it does not take the place of a file that came meanwhile
        except FileExistsError:
            raise _exists(target) from None
        except OSError:
            part.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────


def verify(path: Path, examine: Examine) -> Verified:
    """Looks for damage, then for offences against the laws. The file is not changed, and may be in use.

    A file of an older Stepwell is examined as a copy that is brought up to date. Raises `Unknown`, `Invalid` (not a
    database of Stepwell), `Unavailable` (of a newer one, or unreadable).
    """
    _need_file(path)
    with _opened(path) as db:
        applied = sorted(read_ledger(db, path))
        damage = _damage(db)
        offences: list[str] = []
        if not damage and len(applied) < len(migrations()):
            offences = _examined_later(db, examine)
        elif not damage:
            offences = list(examine(SqliteReader(db)))
        return Verified(str(path), path.stat().st_size, applied, damage, offences)


def _damage(db: sqlite3.Connection) -> list[str]:
    try:
        return [row[0] for row in db.execute(f"pragma integrity_check({NAMED})") if row[0] != "ok"]
    except sqlite3.DatabaseError as error:
        return [str(error)]


def _examined_later(db: sqlite3.Connection, examine: Examine) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="stepwell-verify-") as space:
        copy = Path(space) / "copy.sqlite"
        _copy(db, copy, no_progress)
        store = SqliteStore(copy)
        store.migrate()
        with closing(store.reader()) as reader:
            return list(examine(reader))


# ── restore ──────────────────────────────────────────────────────────────────────────────────────────────────────


def restore(
    source: Path,
    target: Path,
    examine: Examine,
    *,
    now: datetime,
    force: bool = False,
    progress: Progress = no_progress,
) -> Path | None:
    """Puts a backup in place, after it was verified; answers where the old database went, if there was one.

    A database that is there stays, unless `force`; and it stays when anybody has it open. After a crash in between,
    it is the old one or the new one. Raises what `verify` and `backup` do.
    """
    if target.exists() and not force:
        raise _exists(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise Invalid(f"{target} is the backup itself", hint="Name another database with --db or --data-dir.")
    found = verify(source, examine)
    if not found.ok:
        first = (*found.damage, *found.offences)[0]
        raise Invalid(f"{source} is damaged: {first}", hint="Take another backup; `stepwell db verify` tells all.")
    aside = target.with_name(f"{target.name}.replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    if not target.exists():
        _leave(target, aside, SIDES)
        backup(source, target, progress=progress)
        return None
    if aside.exists():
        raise _exists(aside)
    with _opened(source) as new:
        if not _replace(new, target, aside, progress):
            _leave(target, aside, ("", *SIDES))
            backup(source, target, progress=progress)
    return aside


def _replace(new: sqlite3.Connection, target: Path, aside: Path, progress: Progress) -> bool:
    """Changes what a file holds, in one transaction; what it held is copied aside. False if it is no database at all.

    It is not renamed: a process that waits for its lock would go on with the file that was renamed, and would apply the
    log of the one to the other.
    """
    try:
        with closing(sqlite3.connect(target, isolation_level=None, timeout=0)) as db:
            # Nobody has it open, and its log is empty and gone: that is when SQLite lets it leave the mode of logs.
            db.execute("pragma journal_mode = delete")
            # The lock is kept from here on: a reader that came between the two copies would stop the second.
            db.execute("pragma locking_mode = exclusive")
            db.execute("begin exclusive")
            db.execute("commit")
            with _new_file(aside) as part:
                _copy(db, part, progress)
                _publish(part, aside, force=False)
            db.execute("pragma synchronous = full")
            new.backup(db, pages=STEP, progress=lambda _, left, total: progress(total - left, total))
    except sqlite3.Error as error:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Unavailable(
                f"{target} is in use", hint="Stop every server, worker and command that has it open, and try again."
            ) from error
        if _code(error) == sqlite3.SQLITE_NOTADB:
            return False
        raise _cannot("replace", target, error) from error
    return True


def _leave(target: Path, aside: Path, sides: Iterable[str]) -> None:
    """Moves what is there out of the way: a log of an old database would be applied to the new one."""
    for side in sides:
        with contextlib.suppress(FileNotFoundError):
            target.with_name(target.name + side).rename(aside.with_name(aside.name + side))


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises `Invalid` for what is not a database of Stepwell."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute(f"pragma busy_timeout = {BUSY_MS}")
            if db.execute("select 1 from sqlite_schema where name = 'migration'").fetchone() is None:
                raise Invalid(
                    f"{path} is no database of Stepwell", hint="Name the file that `stepwell db backup` wrote."
                )
            yield db
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_NOTADB:
            raise Invalid(f"{path} is no database: {error}", hint=OURS) from error
        raise _cannot("read", path, error) from error


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise Unknown(f"no database {path}", hint="Name a file with --db or --data-dir.", path=str(path))


def _exists(path: Path) -> Exists:
    return Exists(f"{path} exists", hint="Name another file, or say --force.", path=str(path))


def _cannot(what: str, path: Path, error: sqlite3.Error) -> Unavailable:
    return Unavailable(f"cannot {what} {path}: {error}", hint="Check the disk and its space, and the permissions.")

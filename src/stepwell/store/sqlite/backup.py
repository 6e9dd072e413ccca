"""Copies of a database: made while it is written, verified, and put in place (source: spec codex-flows 4.9).

A copy is one file, without -wal and -shm beside it. SQLite makes it, under its own locks; a file in place is changed
only in one transaction of SQLite, or appears with all that is in it.
"""

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.copying import Progress as Told
from stepwell.store.copying import no_progress as no_rows
from stepwell.store.port import Reader
from stepwell.store.sqlite.app_copying import PREFIX, SqliteApp
from stepwell.store.sqlite.copying import changed_rows
from stepwell.store.sqlite.files import (
    IN_USE,
    SIDES,
    cannot,
    code_of,
    exists_error,
    need_file,
    new_file,
    opened,
    publish,
    sync,
)
from stepwell.store.sqlite.reader import SqliteReader
from stepwell.store.sqlite.sql import migrations
from stepwell.store.sqlite.store import SqliteStore, read_ledger

#: Pages copied between two reports of progress, and damages that are named.
STEP = 4_096
NAMED = 100
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
    need_file(source)
    if not force and target.exists():
        raise exists_error(target)
    if target.exists() and target.samefile(source):
        raise Invalid(f"{target} is the database itself", hint="Name another file.")
    with opened(source) as db, new_file(target) as part:
        _copy(db, part, progress)
        size = part.stat().st_size
        publish(part, target, force=force)
    return size


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
        raise cannot("copy to", part.parent, error) from error
    sync(part)


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────


def verify(path: Path, examine: Examine, progress: Told = no_rows) -> Verified:
    """Looks for damage, then for offences against the laws. The file is not changed, and may be in use.

    A file of an older Stepwell is examined as a copy that is brought up to date. Raises `Unknown`, `Invalid` (not a
    database of Stepwell), `Unavailable` (of a newer one, or unreadable).
    """
    need_file(path)
    with opened(path) as db:
        applied = sorted(read_ledger(db, path))
        damage = _damage(db, progress)
    offences: list[str] = []
    if not damage:
        with up_to_date(path) as current, opened(current) as db:
            offences = list(examine(SqliteReader(db)))
    return Verified(str(path), path.stat().st_size, applied, damage, offences)


def _damage(db: sqlite3.Connection, progress: Told) -> list[str]:
    try:
        found = [row[0] for row in db.execute(f"pragma integrity_check({NAMED})") if row[0] != "ok"]
        return found or changed_rows(db, progress)
    except sqlite3.DatabaseError as error:
        return [str(error)]


@contextmanager
def up_to_date(path: Path) -> Iterator[Path]:
    """The file, or where an older Stepwell wrote it, a copy that is brought up to date, and goes again."""
    with opened(path) as db:
        if len(read_ledger(db, path)) == len(migrations()):
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="stepwell-verify-") as space:
            copy = Path(space) / "copy.sqlite"
            _copy(db, copy, no_progress)
            SqliteStore(copy).migrate()
            yield copy


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
        raise exists_error(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise Invalid(f"{target} is the backup itself", hint="Name another database with --db or --data-dir.")
    need_sound(source, examine)
    _need_own_tables(source)
    aside = target.with_name(f"{target.name}.replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    if not target.exists():
        _leave(target, aside, SIDES)
        backup(source, target, progress=progress)
        return None
    if aside.exists():
        raise exists_error(aside)
    with opened(source) as new:
        if not _replace(new, target, aside, progress):
            _leave(target, aside, ("", *SIDES))
            backup(source, target, progress=progress)
    return aside


def _need_own_tables(source: Path) -> None:
    """Raises `Invalid` for a backup of another store with tables of an app, whose rules that app's migrations make."""
    with opened(source) as db:
        names = [table.name for table in SqliteApp(db, PREFIX).tables()]
    if names:
        raise Invalid(
            f"{source} has the app's tables {', '.join(names):.200} from another store",
            hint="Let the app make them: stepwell db copy BACKUP FILE --app MODULE:APP",
        )


def need_sound(source: Path, examine: Examine, progress: Told = no_rows) -> None:
    """Raises `Invalid` for a backup that is damaged, or breaks a law."""
    found = verify(source, examine, progress)
    if not found.ok:
        first = (*found.damage, *found.offences)[0]
        raise Invalid(f"{source} is damaged: {first}", hint="Take another backup; `stepwell db verify` tells all.")


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
            with new_file(aside) as part:
                _copy(db, part, progress)
                publish(part, aside, force=False)
            db.execute("pragma synchronous = full")
            new.backup(db, pages=STEP, progress=lambda _, left, total: progress(total - left, total))
    except sqlite3.Error as error:
        if code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Unavailable(f"{target} is in use", hint=IN_USE) from error
        if code_of(error) == sqlite3.SQLITE_NOTADB:
            return False
        raise cannot("replace", target, error) from error
    return True


def _leave(target: Path, aside: Path, sides: Iterable[str]) -> None:
    """Moves what is there out of the way: a log of an old database would be applied to the new one."""
    for side in sides:
        with contextlib.suppress(FileNotFoundError):
            target.with_name(target.name + side).rename(aside.with_name(aside.name + side))

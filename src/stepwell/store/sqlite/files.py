"""Files that hold a database: found, opened to be read, and made so that they appear with all that is in them."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from stepwell.model.errors import Exists, Invalid, Unavailable, Unknown

BUSY_MS = 10_000
OURS = "Name the file that `stepwell db backup` wrote, or a database that `stepwell serve` made."
IN_USE = "Stop every server, worker and command that has it open, and try again."
SIDES = ("-wal", "-shm", "-journal")


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
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


def publish(part: Path, target: Path, *, force: bool) -> None:
    if force:
        part.replace(target)
    else:
        try:
            os.link(part, target)  # unlike a rename, it does not take the place of a file that came meanwhile
        except FileExistsError:
            raise exists_error(target) from None
        except OSError:
            part.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises `Invalid` for what is not a database of Stepwell."""
    with telling(path), closing(_connected(path, "ro", BUSY_MS)) as db:
        _need_ours(db, path)
        yield db


@contextmanager
def opened_alone(path: Path) -> Iterator[sqlite3.Connection]:
    """The same, and nobody else can open the file until the context ends. Raises `Unavailable` when somebody has."""
    with telling(path), closing(_connected(path, "rw", 0)) as db:
        db.execute("pragma locking_mode = exclusive")
        db.execute("begin exclusive")
        db.execute("commit")  # the lock stays
        _need_ours(db, path)
        yield db


def _connected(path: Path, mode: str, busy_ms: int) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    db.execute(f"pragma busy_timeout = {busy_ms}")
    return db


def _need_ours(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("select 1 from sqlite_schema where name = 'migration'").fetchone() is None:
        raise Invalid(f"{path} is no database of Stepwell", hint="Name the file that `stepwell db backup` wrote.")


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """SQLite's errors as those that callers see."""
    try:
        yield
    except sqlite3.Error as error:
        if code_of(error) == sqlite3.SQLITE_NOTADB:
            raise Invalid(f"{path} is no database: {error}", hint=OURS) from error
        if code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Unavailable(f"{path} is in use", hint=IN_USE) from error
        raise cannot("read", path, error) from error


def code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def need_file(path: Path) -> None:
    if not path.is_file():
        raise Unknown(f"no database {path}", hint="Name a file with --db or --data-dir.", path=str(path))


def exists_error(path: Path) -> Exists:
    return Exists(f"{path} exists", hint="Name another file, or say --force.", path=str(path))


def cannot(what: str, path: Path, error: sqlite3.Error) -> Unavailable:
    return Unavailable(f"cannot {what} {path}: {error}", hint="Check the disk and its space, and the permissions.")

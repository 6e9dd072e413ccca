"""What SQLite's errors mean to a lane."""

import sqlite3
from types import TracebackType

from stepwell.store.port import Broken, Refused, Retry, Unknowable

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_BROKEN = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_FILE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class Told:
    """Turns errors into those of the port. An error of input or output leaves open whether a commit happened."""

    def __init__(self, *, committing: bool = False) -> None:
        self._committing = committing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise self.meaning(error)(str(error)) from error
        if isinstance(error, UnicodeEncodeError | OverflowError | ValueError):
            raise Refused(f"{type(error).__name__}: {error}") from error

    def meaning(self, error: sqlite3.Error) -> type[Exception]:
        """The port's exception for an error of SQLite."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return Retry
        if code in _BROKEN:
            return Broken
        if self._committing:
            return Unknowable
        return Broken if code in _NO_FILE else Refused


TOLD = Told()
TOLD_OF_COMMIT = Told(committing=True)

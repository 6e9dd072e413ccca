"""What PostgreSQL's errors mean to a lane."""

from types import TracebackType

import psycopg

from stepwell.store.port import Broken, Refused, Retry, Unknowable

#: Rows that another lane may have made since this one looked: a fresh look finds them.
_MADE_BY_OTHERS = frozenset(("run_pkey", "run_id", "event_pkey", "event_id", "request_pkey"))
_UNIQUE_VIOLATION = "23505"
#: Values and rows that are refused for what they are.
_REFUSED = ("22", "23", "54")
#: Another lane was in the way, somebody canceled the query, or this process stood still for too long.
_CONFLICTS = ("40", "55P03", "57014", "25P03")


class Told:
    """Turns errors into those of the port. A commit may have happened, unless the server refused it and goes on.

    Before the commit nothing was written: a server that stops, starts, is full, only reads or cannot be reached is
    `Broken` until it is none of that.
    """

    def __init__(self, *, committing: bool = False) -> None:
        self._committing = committing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, psycopg.Error):
            raise self.meaning(error)(said_by(error)) from error
        if isinstance(error, UnicodeEncodeError | OverflowError | ValueError):
            raise Refused(f"{type(error).__name__}: {error}") from error

    def meaning(self, error: psycopg.Error) -> type[Exception]:
        """The port's exception for an error of psycopg."""
        state = error.sqlstate or ""
        if state == _UNIQUE_VIOLATION and error.diag.constraint_name in _MADE_BY_OTHERS:
            return Retry
        if isinstance(error, psycopg.DataError):
            return Refused
        if self._committing and error.diag.severity_nonlocalized != "ERROR":
            return Unknowable
        if state.startswith(_REFUSED):
            return Refused
        return Retry if state.startswith(_CONFLICTS) else Broken


def said_by(error: psycopg.Error) -> str:
    """One line, without the values of the row, which are somebody's data, and without the address: anybody may ask."""
    said = str(error).strip().partition("\n")[0].rpartition(" failed: ")
    lost = f"no connection to the server: {said[2]}" if said[1] else said[2]
    return error.diag.message_primary or lost or type(error).__name__


TOLD = Told()
TOLD_OF_COMMIT = Told(committing=True)

"""What PostgreSQL's errors mean to a lane."""

from types import TracebackType

import psycopg

from stepwell.store.port import Broken, Refused, Retry, Unknowable

#: Rows that another lane may have made since this one looked: a fresh look finds them.
_MADE_BY_OTHERS = frozenset(("run_pkey", "run_id", "event_pkey", "event_id", "request_pkey"))
_UNIQUE_VIOLATION = "23505"
#: Disk full, errors of input or output, damaged data: the server cannot write, whoever asks.
_BROKEN = ("53100", "58", "XX001", "XX002")
#: Values and rows that are refused for what they are.
_REFUSED = ("22", "23", "54")
#: Before the commit nothing was written, so anything that may pass is tried again: conflicts, a server that stops,
#: starts, is full or only reads, a query that somebody canceled.
_PASSING = ("08", "25006", "40", "53", "55", "57")


class Told:
    """Turns errors into those of the port. A commit that the server did not refuse by name may have happened."""

    def __init__(self, *, committing: bool = False) -> None:
        self._committing = committing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, psycopg.Error):
            raise self.meaning(error)(_text(error)) from error
        if isinstance(error, UnicodeEncodeError | OverflowError | ValueError):
            raise Refused(f"{type(error).__name__}: {error}") from error

    def meaning(self, error: psycopg.Error) -> type[Exception]:
        """The port's exception for an error of psycopg."""
        state = error.sqlstate or ""
        if state == _UNIQUE_VIOLATION and error.diag.constraint_name in _MADE_BY_OTHERS:
            return Retry
        if self._committing:
            return Retry if state.startswith(("40", "23")) else Unknowable
        if state.startswith(_REFUSED) or isinstance(error, psycopg.DataError):
            return Refused
        if state.startswith(_PASSING) and not state.startswith(_BROKEN):
            return Retry
        lost = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Retry if lost else Broken


def _text(error: psycopg.Error) -> str:
    """One line, without the values of the row: those are somebody's data."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__


TOLD = Told()
TOLD_OF_COMMIT = Told(committing=True)

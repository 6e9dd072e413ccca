"""Calls of mutations, which run inside a command: their savepoints, and how much of them a batch runs."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from msgspec import Struct

#: How much of users' code one batch runs, in milliseconds: past it, what calls a mutation waits for the next batch.
USER_MS = 5.0
#: How deep calls may lie in calls: a mutation that ends a run, whose callback ends a run, and so on.
CALL_DEPTH = 8


class Undoable(Protocol):
    """What the undo log can take back."""

    def restore(self, key: Any, row: Any, state: str | None) -> None: ...


Undo = tuple[Undoable, Hashable, Any, str | None]


class Call(Struct, frozen=True, gc=False):
    """One call of a mutation. `args` is an object of names, or with `whole` the one value it takes.

    `run_no` is the run that it belongs to, None for a call from outside; `by` says who calls.
    """

    function: str
    args: str
    scope: str
    by: str = ""
    run_no: int | None = None
    whole: bool = False


class Called(Struct, frozen=True, gc=False):
    """How a call went: `text` is the result as JSON, or the error as JSON and nothing was changed."""

    done: bool
    text: str
    took_ms: float = 0.0


class Forbidden(Exception):
    """A statement of the app that is not its business: the kernel's tables, transactions, the schema."""


class Overdue(Exception):
    """A statement took longer than it was given."""


class Result(Struct, frozen=True):
    """`columns` is empty for a statement that answers no rows; `changed` rows; `more`: there were more than asked."""

    changed: int
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    more: bool = False


class AppTables(Protocol):
    """The app's own tables on a store's connection. Anything else there raises `Forbidden`.

    Errors of the database come as they are, but those that end the batch, which come as `Away`.
    """

    def execute(self, sql: str, values: Sequence[Any], limit: int) -> Result:
        """Runs one statement; reads at most `limit` rows of what it answers."""

    def save(self) -> None:
        """From here `back` finds the way back. Savepoints nest."""

    def keep(self) -> None:
        """Drops the last savepoint; its changes are part of what is around it."""

    def back(self) -> None:
        """Takes back everything since the last savepoint, and drops it."""

    def settle(self) -> None:
        """Checks now what the database would check at the commit, where it would fail others, too."""

    def until(self, left_s: Callable[[], float] | None) -> None:
        """From now on a statement is ended (`Overdue`) when no seconds are left; None: never."""


class Away(Exception):
    """The store failed under a mutation, so the whole batch is over. `error` is what the store said."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Postponed(Exception):
    """The batch has run enough of users' code, or another lane runs it: the command changed nothing and goes there."""


class Busy(Postponed):
    """Another lane has a run that the command names, for as long as a commit takes, or a mutation."""


class Calls:
    """Calls of mutations in a batch: how deep, for how long, and the savepoints that are still open.

    `elsewhere`: another lane makes them. What people and workers send goes there; what the lane asks of itself does not
    wait for it, and leaves a message for a callback.
    """

    __slots__ = ("_app", "depth", "elsewhere", "full", "open", "spent_ms")

    def __init__(self, app: AppTables | None, elsewhere: bool = False) -> None:
        self._app, self.elsewhere = app, elsewhere
        self.depth = self.open = 0
        self.spent_ms = 0.0
        self.full = False  # whether the command under way must not call any more

    def save(self) -> Undo:
        """Opens a savepoint; answers what takes it back."""
        if self._app is not None:
            self._app.save()
        self.open += 1
        return self, None, None, None

    def restore(self, key: Any, row: Any, state: str | None) -> None:
        """Takes the last savepoint back."""
        self.open -= 1
        if self._app is not None:
            self._app.back()

    def keep(self) -> None:
        """The command is decided: its savepoints are dropped, their changes stay."""
        while self.open:
            self.open -= 1
            if self._app is not None:
                self._app.keep()

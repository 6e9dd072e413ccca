"""The app's tables, which are not on PostgreSQL yet: whoever asks for them is told so."""

from collections.abc import Callable, Sequence
from typing import Any

from stepwell.kernel.calls import Forbidden, Result

NOT_YET = "may not use tables of the app yet where the store is PostgreSQL; on SQLite it may"


class NoTables:
    """A savepoint of nothing is nothing: a mutation that asks for no table runs, and one that does is refused."""

    def execute(self, sql: str, values: Sequence[Any], limit: int) -> Result:
        raise Forbidden(NOT_YET)

    def save(self) -> None:
        """There is nothing to come back to."""

    def keep(self) -> None:
        """There is nothing to keep."""

    def back(self) -> None:
        """There is nothing to take back."""

    def until(self, over: Callable[[], bool] | None) -> None:
        """There is no statement to end."""

"""The app's tables in a copy: their rows go along, into tables that the app's own migrations made on the other side.

What makes them, and what they look like, is in the app's migrations and differs from store to store; so only rows move.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from stepwell.model.errors import Invalid
from stepwell.store.sums import Batches

#: The numbers of an app's applied migrations, by the app's name.
Ledger: TypeAlias = Mapping[str, Sequence[int]]
APPLY = "Say --app MODULE:APP, with the version of the app that the source has, or leave the tables out: --without-app."


class AppTable(Struct, frozen=True):
    """A table of the app, and its columns but for those that are computed."""

    name: str
    columns: tuple[str, ...]


class AppSource(Protocol):
    """The app's tables at one moment. Values are None, int, float, str and bytes; others come as their text."""

    def ledger(self) -> Ledger: ...

    def tables(self) -> list[AppTable]: ...

    def rows(self, table: AppTable) -> Batches: ...


class AppTarget(AppSource, Protocol):
    """The app's tables that are being filled."""

    def ready(self, ledger: Ledger, tables: Sequence[AppTable]) -> list[AppTable]:
        """Sees to it that there is a place for every row; answers the tables in the order in which to write them.

        Raises `Invalid` for an app whose tables would stay behind.
        """

    def write(self, table: AppTable, batches: Batches) -> None: ...

    def finish(self) -> None:
        """Everything is written: triggers work again, and numbers go on behind those in use."""


def refuse_missing(target: AppSource, ledger: Ledger, tables: Sequence[AppTable]) -> None:
    """Raises `Invalid` unless the target's apps are as far as the source's, and have their tables."""
    there = target.ledger()
    for app, numbers in ledger.items():
        if sorted(there.get(app, ())) != sorted(numbers):
            raise Invalid(
                f"the tables of app {app} would stay behind: {_said(numbers)} were applied to the source, and"
                f" {_said(there.get(app, ()))} to the target",
                hint=APPLY,
            )
    known = {table.name: set(table.columns) for table in target.tables()}
    for table in tables:
        missing = set(table.columns) - known.get(table.name, set())
        if missing:
            what = f"no {', '.join(sorted(missing))}" if table.name in known else "no such table"
            raise Invalid(f"the app's table {table.name} would stay behind: the target has {what}", hint=APPLY)


def _said(numbers: Sequence[int]) -> str:
    return f"migrations {', '.join(map(str, sorted(numbers)))}" if numbers else "no migrations"

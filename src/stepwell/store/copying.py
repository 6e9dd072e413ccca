"""A copy of a whole store in an empty one: every row as it is, counted and summed on both sides.

A source shows one moment. A target appears with all that belongs in it, or not at all. Runs, events and messages keep
their numbers, changes their positions. Rows of lanes stay behind: a lane of the old store is unknown to the new one.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeAlias, get_args

import msgspec
from msgspec import Struct

from stepwell.model import rows
from stepwell.model.errors import Internal
from stepwell.store.app_copying import AppSource, AppTable, AppTarget
from stepwell.store.port import Store
from stepwell.store.sums import Batches, Sum, sum_of


class Kept(Struct, frozen=True):
    """A table that every store on a disk has: its columns with their types, and what its rows are ordered by."""

    name: str
    columns: dict[str, type]
    key: tuple[str, ...]


def _kept(name: str, row: type[Struct], *key: str, first: tuple[str, ...] = ()) -> Kept:
    fields = msgspec.structs.fields(row)
    return Kept(name, {**dict.fromkeys(first, int), **{one.name: _plain(one.type) for one in fields}}, key)


def _plain(kind: Any) -> type:
    """int, float, bool or str: what a column holds, beside null."""
    return next((one for one in (bool, int, float) if one in (kind, *get_args(kind))), str)


class Meta(Struct):
    """A row of `meta`."""

    key: str
    value: int


#: All of them, small ones first: what is wrong with the databases shows early.
TABLES = (
    _kept("meta", Meta, "key"),
    _kept("manifest", rows.Manifest, "scope", "name"),
    _kept("pool", rows.Pool, "scope", "name"),
    _kept("message", rows.Message, "no"),
    _kept("request", rows.Request, "scope", "key"),
    _kept("event", rows.Event, "no"),
    _kept("run", rows.Run, "no"),
    _kept("task", rows.Task, "no", first=("no",)),
    _kept("change", rows.Change, "no", first=("no",)),
    _kept("blob", rows.Blob, "run_no", "event_no", "hash"),
    _kept("output", rows.Output, "run_no", "n"),
    _kept("entry", rows.Entry, "run_no", "seq"),
)
#: What has numbers that are never given twice, by table.
NUMBERED = ("run", "event", "message")


class Copied(Struct, frozen=True):
    """What went over: rows by table, of the kernel and of the app, and up to which change, by its number."""

    position: int
    rows: dict[str, int]
    app: dict[str, int]


class Source(Protocol):
    """One moment of a store. Errors come as `StepwellError`."""

    @property
    def app(self) -> AppSource: ...

    def rows(self, table: Kept) -> Batches: ...

    def numbers(self) -> dict[str, int]:
        """The highest number ever given, by table; rows with it may be gone."""

    def head(self) -> int:
        """The number of the last change that the moment shows."""


class Target(Source, Protocol):
    """A store that is being filled. What is written is there once its context ends, and only if that ends well."""

    @property
    def app(self) -> AppTarget: ...

    def write(self, table: Kept, batches: Batches) -> None: ...

    def finish(self, numbers: dict[str, int], head: int, sums: dict[str, Sum]) -> None:
        """Numbers given from now on are beyond these, and those of changes beyond the head."""


Opened: TypeAlias = AbstractContextManager[Target]
#: Hears what is done (copied, compared), the table, and how many of its rows.
Progress: TypeAlias = Callable[[str, str, int], None]


#: Makes a store ready to be filled: the app's tables.
Prepare: TypeAlias = Callable[[Store], None]


def nothing(_: Store) -> None:
    """There is no app."""


def no_progress(_: str, __: str, ___: int) -> None:
    """Tells nobody."""


def copy(source: Source, opened: Opened, progress: Progress = no_progress, *, app: bool = True) -> Copied:
    """Fills the target with what the source shows, reads it back, and compares. Durable when it returns.

    `app`: with the app's tables, which have to be there on the other side. Raises `Invalid` for those that are not.
    """
    with opened as target:
        ordered = target.app.ready(source.app.ledger(), source.app.tables()) if app else []
        sums = {table.name: _write(source, target, table, progress) for table in TABLES}
        for table in TABLES:
            _compare(
                table.name, sums[table.name], sum_of(target.rows(table), partial(progress, "compared", table.name))
            )
        apps = {table.name: _write_app(source.app, target.app, table, progress) for table in ordered}
        if app:
            target.app.finish()
        head = source.head()
        target.finish(source.numbers(), head, {**sums, **{f"app {name}": one for name, one in apps.items()}})
        return Copied(
            head, {name: one.rows for name, one in sums.items()}, {name: one.rows for name, one in apps.items()}
        )


def _counts(sums: Mapping[str, Sum]) -> dict[str, int]:
    return {name: one.rows for name, one in sums.items()}


def _write(source: Source, target: Target, table: Kept, progress: Progress) -> Sum:
    written = Sum()
    target.write(table, written.counting(source.rows(table), partial(progress, "copied", table.name)))
    return written


def _write_app(source: AppSource, target: AppTarget, table: AppTable, progress: Progress) -> Sum:
    """Another store may show a value in another form, so the rows are counted and not compared; that sum is kept."""
    written = Sum()
    target.write(table, written.counting(source.rows(table), partial(progress, "copied", table.name)))
    found = sum_of(target.rows(table), partial(progress, "compared", table.name))
    if found.rows != written.rows:
        _compare(table.name, written, found)
    return found


def _compare(name: str, written: Sum, found: Sum) -> None:
    if found != written:
        raise Internal(
            f"{written.rows:,} rows of {name} were written, and {found.rows:,} came back that are not the same",
            hint="Nothing was kept. This is a fault of Stepwell or of the disk: try again, and report it.",
        )

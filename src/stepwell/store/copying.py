"""A copy of a whole store in an empty one: every row as it is, counted and summed on both sides.

A source shows one moment. A target appears with all that belongs in it, or not at all. Runs, events and messages keep
their numbers, changes their positions. Rows of lanes stay behind: a lane of the old store is unknown to the new one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeAlias, get_args

import msgspec
from msgspec import Struct

from stepwell.model import rows
from stepwell.model.errors import Internal

Row: TypeAlias = Sequence[Any]
Batches: TypeAlias = Iterator[list[Row]]
#: Rows that are in memory at a time, and characters in them, give or take a row.
BATCH, BATCH_CHARS = 1_000, 4 << 20
_SPACE = 1 << 256
_packed = msgspec.msgpack.Encoder().encode


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


class Sum(Struct):
    """How many rows a table has, and a sum of their hashes: whatever their order, other rows have another one."""

    rows: int = 0
    total: int = 0

    def add(self, batch: Iterable[Row]) -> None:
        """Counts rows in."""
        for row in batch:
            self.rows += 1
            self.total += int.from_bytes(hashlib.sha256(_packed(row)).digest(), "big")
        self.total %= _SPACE

    @property
    def hex(self) -> str:
        """The sum as a text of 64 characters."""
        return f"{self.total:064x}"

    def counting(self, batches: Batches, told: Callable[[int], None]) -> Batches:
        """The same rows, counted as they pass; `told` hears how many came so far."""
        for batch in batches:
            self.add(batch)
            told(self.rows)
            yield batch


def batched(found: Iterable[Row]) -> Batches:
    """Rows in lists that are bounded in number and in size."""
    batch: list[Row] = []
    chars = 0
    for row in found:
        batch.append(row)
        chars += sum(len(value) for value in row if type(value) is str)
        if len(batch) == BATCH or chars > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


class Copied(Struct, frozen=True):
    """What went over: rows by table, and up to which row of the change log."""

    position: int
    rows: dict[str, int]


class Source(Protocol):
    """One moment of a store. Errors come as `StepwellError`."""

    def rows(self, table: Kept) -> Batches: ...

    def numbers(self) -> dict[str, int]:
        """The highest number ever given, by table; rows with it may be gone."""

    def head(self) -> int:
        """The number of the last change that the moment shows."""


class Target(Source, Protocol):
    """A store that is being filled. What is written is there once its context ends, and only if that ends well."""

    def write(self, table: Kept, batches: Batches) -> None: ...

    def finish(self, numbers: dict[str, int], head: int, sums: dict[str, Sum]) -> None:
        """Numbers given from now on are beyond these, and those of changes beyond the head."""


Opened: TypeAlias = AbstractContextManager[Target]
#: Hears what is done (copied, compared), the table, and how many of its rows.
Progress: TypeAlias = Callable[[str, str, int], None]


def no_progress(_: str, __: str, ___: int) -> None:
    """Tells nobody."""


def copy(source: Source, opened: Opened, progress: Progress = no_progress) -> Copied:
    """Fills the target with what the source shows, reads it back, and compares. Durable when it returns."""
    with opened as target:
        sums = {table.name: _write(source, target, table, progress) for table in TABLES}
        for table in TABLES:
            _compare(target, table, sums[table.name], progress)
        head = source.head()
        target.finish(source.numbers(), head, sums)
        return Copied(head, {name: one.rows for name, one in sums.items()})


def _write(source: Source, target: Target, table: Kept, progress: Progress) -> Sum:
    written = Sum()
    target.write(table, written.counting(source.rows(table), partial(progress, "copied", table.name)))
    return written


def _compare(target: Target, table: Kept, written: Sum, progress: Progress) -> None:
    found = sum_of(target, table, partial(progress, "compared", table.name))
    if found != written:
        raise Internal(
            f"{written.rows:,} rows of {table.name} were written, and {found.rows:,} came back that are not the same",
            hint="Nothing was kept. This is a fault of Stepwell or of the disk: try again, and report it.",
        )


def sum_of(source: Source, table: Kept, told: Callable[[int], None]) -> Sum:
    """The sum of a table; `told` hears how many of its rows were read."""
    found = Sum()
    for _ in found.counting(source.rows(table), told):
        pass
    return found

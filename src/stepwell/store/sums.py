"""Rows on their way from store to store: bounded in memory, counted and summed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

Row: TypeAlias = Sequence[Any]
Batches: TypeAlias = Iterator[list[Row]]
#: Rows that are in memory at a time, and characters in them, give or take a row.
BATCH, BATCH_CHARS = 1_000, 4 << 20
_SPACE = 1 << 256
_packed = msgspec.msgpack.Encoder().encode


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


def sum_of(batches: Batches, told: Callable[[int], None]) -> Sum:
    """The sum of rows; `told` hears how many were read."""
    found = Sum()
    for _ in found.counting(batches, told):
        pass
    return found

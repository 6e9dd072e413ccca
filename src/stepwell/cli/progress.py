"""How far long work is, for people at a terminal."""

import sys
from types import TracebackType
from typing import Self

import click

from stepwell.engine.doctor import Checked


class Told:
    """Progress on a terminal: one line on stderr that goes again."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line("")

    def pages(self, done: int, total: int) -> None:
        """Of a file."""
        self._line(f"{done:,} of {total:,} pages")

    def checked(self, now: Checked) -> None:
        """Of a look at every law."""
        self._line(f"{now.runs:,} runs, {now.entries:,} entries, {now.events:,} events")

    def copied(self, done: str, table: str, rows: int) -> None:
        """Of a copy, and of the comparison after it."""
        self._line(f"{done} {rows:,} rows of {table}")

    def _line(self, text: str) -> None:
        if self._on:
            click.echo(f"\r\033[K{text}", nl=False, err=True)

"""Kinds of databases to measure on: a fresh one for each measure, and the raw floor beside it."""

from typing import Protocol

from bench.floor import Floor
from bench.report import Budget, at_least, at_most
from bench.rig import Rig


class Raw(Protocol):
    """The least that a database can do: every method answers the seconds that so many commits took."""

    def one_row(self, commits: int) -> float: ...
    def group(self, commits: int, runs: int = 100) -> float: ...
    def all_rows(self, commits: int) -> float: ...
    def close(self) -> None: ...


class Ground(Protocol):
    """Where programs are measured, and what is expected of them there."""

    def budget(self, what: str) -> Budget | None: ...
    def url(self, name: str) -> str: ...
    def floor(self, name: str) -> Raw: ...


BUDGETS = {
    "step": at_most(1.8),
    "steps": at_least(25_000),
    "queued": at_least(8_000),
    "start": at_most(1.5),
    "resident": at_most(1),
    "parked": at_most(3),
    "resume": at_most(300),
}


class OnSqlite:
    """A file in a folder of its own."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def budget(self, what: str) -> Budget | None:
        return BUDGETS.get(what)

    def url(self, name: str) -> str:
        return f"sqlite:///{self._rig.fresh(name)}"

    def floor(self, name: str) -> Raw:
        return Floor(self._rig.fresh(name))

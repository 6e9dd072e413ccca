"""What a batch is going to ask for first, and the answers, which come with the begin of its transaction.

Each wait for the server costs a turn of two threads and of two processes, more than most statements do.
"""

from collections.abc import Collection, Mapping
from typing import Any

from stepwell.kernel.unit import TaskKey
from stepwell.model.rows import Task
from stepwell.store.port import NOTHING, Ahead
from stepwell.store.postgres.exchange import Rows, Statement
from stepwell.store.postgres.numbers import Numbers
from stepwell.store.postgres.sql import sql
from stepwell.store.postgres.text import storable

#: How many (pool, requires, scope) a claim looks at.
GROUPS = 100


def asked(ahead: Ahead, numbers: Numbers) -> dict[str, Statement]:
    """What is asked ahead, by what it is; in the order in which all lanes take locks."""
    asks: dict[str, Statement] = {}
    if ahead.requests:
        asks["requests"] = sql("load/requests"), key_columns(ahead.requests)
    if ahead.runs or ahead.ids:
        asks["runs"] = named_runs("free_runs", ahead.runs, ahead.ids)
    if ahead.tasks:
        asks["tasks"] = sql("load/tasks"), (numbers_of(ahead.tasks),)
    if ahead.pools:
        asks["pools"] = sql("load/pools"), key_columns(ahead.pools)
    for pool in ahead.ready:
        asks[f"ready {pool}"] = groups_of(pool)
    for kind, count in ahead.numbers.items():
        if missing := numbers.missing(kind, count):
            asks[f"{kind} numbers"] = numbers.more(kind, missing)
    return asks


class Brought:
    """What came with the begin of a transaction. None: it was not asked for, or not in this way."""

    def __init__(self, ahead: Ahead = NOTHING, rows: Mapping[str, Rows] = {}) -> None:
        self._ahead, self._rows = ahead, rows
        # those of a run that another lane has may change until it is taken
        ours = {row[1] for row in rows.get("runs", ()) if row[0]}
        found = (Task(*row) for row in rows.get("tasks", ()))
        self.tasks: dict[TaskKey, Task] = {(one.run_no, one.k): one for one in found if one.run_no in ours}

    def requests(self, keys: Collection[tuple[str, str]]) -> Rows | None:
        return self._rows.get("requests") if self._ahead.requests == set(keys) else None

    def runs(self, numbers: Collection[int], ids: Collection[tuple[str, str]]) -> Rows | None:
        same = self._ahead.runs == numbers and self._ahead.ids == set(ids)
        return self._rows.get("runs") if same else None

    def pools(self, keys: Collection[tuple[str, str]]) -> Rows | None:
        return self._rows.get("pools") if self._ahead.pools == set(keys) else None

    def groups(self, pool: str) -> Rows | None:
        """The first `GROUPS` of a pool."""
        return self._rows.get(f"ready {pool}")

    def numbers(self, kind: str) -> list[int]:
        return [row[0] for row in self._rows.get(f"{kind} numbers", ())]


def named_runs(what: str, numbers: Collection[int], ids: Collection[tuple[str, str]]) -> Statement:
    """The statement that locks runs, in order, and its parameters."""
    if not ids:
        return sql(f"load/{what}"), [list(numbers)]
    return sql(f"load/{what}_and_named"), [list(numbers), *key_columns(ids)]


def groups_of(pool: str, start: tuple[str, str, str] | None = None, limit: int = GROUPS) -> Statement:
    """The groups of a pool, or of all pools for "", that come after one."""
    return sql("find/groups"), (*(start or (pool, "", "")), pool, limit)


def numbers_of(keys: Collection[TaskKey]) -> list[int]:
    return [run_no << 20 | k for run_no, k in keys]


def key_columns(keys: Collection[tuple[Any, str]]) -> tuple[list[Any], list[str]]:
    """Both parts of the keys that something may have."""
    found = [key for key in keys if storable(key[1])]
    return [first for first, _ in found], [second for _, second in found]

"""No statement looks at all of a table, and what is wanted in order is found in order."""

import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepwell.store.port import RunFilter
from stepwell.store.sqlite.reader import runs_statement
from stepwell.store.sqlite.sql import bulk, sql
from stepwell.store.sqlite.store import SqliteStore

SQL = Path(sys.modules[SqliteStore.__module__].__file__ or "").parent / "sql"
#: Statements that may look at all rows of a table, and why.
WHOLE = {
    "find/last_numbers": "sqlite_sequence has a row for each of four tables",
    "find/change_span": "the two ends of the primary key",
    "find/messages": "the oldest ones are the first of the primary key, up to a limit",
    "list/task_counts": "a metric that counts every open task",
    "list/orphans": "the doctor looks at everything",
    "list/others": "a row for each lane",
}
ACTS = sorted(
    path.relative_to(SQL).with_suffix("").as_posix()
    for folder in ("find", "load", "list")
    for path in (SQL / folder).iterdir()
)
SAMPLES = {"load/": '[["main","x"]]', "list/first_run_counts": "[1]", "list/messages_to": "[1]"}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """Statistics of a grown store would only help; without them the planner has to go by the schema."""
    store = SqliteStore(tmp_path_factory.mktemp("plans") / "s.sqlite")
    store.migrate()
    with closing(store.connect()) as db:
        yield db


def plan(db: sqlite3.Connection, statement: str, values: Any = None) -> list[str]:
    if values is None:
        count = max((int(number) for number in re.findall(r"\?(\d+)", statement)), default=0)
        values = ["[]" if "json_each(?1)" in statement else 1] + [1] * (count - 1) if count else []
    return [row[3] for row in db.execute(f"explain query plan {statement}", values)]


def scans(db: sqlite3.Connection, steps: list[str]) -> list[str]:
    """Steps that go through a whole table, rather than a list of keys or an index of the few rows that matter."""
    partial = [
        row[0] for row in db.execute("select name from sqlite_master where type = 'index' and sql like '% where %'")
    ]
    fine = re.compile(rf"VIRTUAL TABLE|subquery|CONSTANT ROW|INDEX ({'|'.join(partial)})\b")
    return [step for step in steps if step.startswith("SCAN") and not fine.search(step)]


@pytest.mark.parametrize("act", [act for act in ACTS if act not in WHOLE and act != "list/runs"])
def test_every_statement_uses_an_index(grown: sqlite3.Connection, act: str) -> None:
    steps = plan(grown, sql(act))
    assert scans(grown, steps) == [], steps


@pytest.mark.parametrize(
    ("act", "index"),
    [
        ("find/ready", "task_ready"),
        ("find/next_group", "task_ready"),
        ("find/due", "task_due"),
        ("find/expired", "task_leased"),
        ("find/leased_by", "task_leased"),
        ("find/late", "task_deadline"),
        ("find/entries_of", "entry_seq"),
        ("list/state", "entry_state"),
        ("load/blobs", "blob_hash"),
        ("find/blocked", "task_blocked"),
        ("find/next_blocked", "task_blocked"),
        ("find/leased_in_pool", "task_used"),
        ("find/leased_of_key", "task_used"),
        ("find/prunable_runs", "run_ended"),
        ("find/prunable_requests", "request_expires"),
        ("find/prunable_events", "run_event"),
        ("find/unmatched_events", "event_unmatched"),
        ("list/events", "event_scope"),
        ("load/runs_by_id", "run_id"),
        ("load/children", "run_child"),
        ("load/event_runs", "run_event"),
        ("load/events", "event_id"),
        ("list/entries", "entry_seq"),
        ("list/entries_until", "entry_seq"),
        ("list/output", "output_n"),
    ],
)
def test_it_is_the_index_that_was_made_for_it(grown: sqlite3.Connection, act: str, index: str) -> None:
    steps = plan(grown, sql(act))
    assert any(f"INDEX {index}" in step for step in steps), steps


@pytest.mark.parametrize("act", ["advance_run", "update_run_status", "update_run", "update_task", "update_event"])
def test_many_rows_are_changed_by_their_numbers(grown: sqlite3.Connection, act: str) -> None:
    statement = bulk(f"flush/{act}", 4)
    steps = plan(grown, statement, [1] * statement.count("?"))
    assert any("USING INTEGER PRIMARY KEY" in step for step in steps), steps


@pytest.mark.parametrize(
    "act", ["find/ready", "find/blocked", "find/due", "find/late", "list/state", "list/entries", "list/output"]
)
def test_what_is_found_in_order_is_not_sorted(grown: sqlite3.Connection, act: str) -> None:
    assert not any("FOR ORDER BY" in step and "LAST" not in step for step in plan(grown, sql(act)))


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (RunFilter(event_no=3), "run_event"),
        (RunFilter(status="queued"), "run_open"),
        (RunFilter(status="waiting"), "run_open"),
        (RunFilter(status="failed"), "run_bad"),
        (RunFilter(hold="paused"), "run_held"),
        (RunFilter(result_status="blocked"), "run_result"),
    ],
    ids=str,
)
def test_lists_of_runs_use_the_index_of_their_filter(grown: sqlite3.Connection, where: RunFilter, index: str) -> None:
    statement, values = runs_statement(where, None, 50)
    steps = plan(grown, statement, values)
    assert any(index in step for step in steps), steps
    assert not any("FOR ORDER BY" in step for step in steps), steps

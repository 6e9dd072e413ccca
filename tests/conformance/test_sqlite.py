"""What only a file can do: stay, be migrated, be shared; and find by index, never by looking at all."""

import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.entries import ActionScheduled
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.columns import ROWS, columns
from stepwell.store.port import Refused, RunFilter
from stepwell.store.sqlite.reader import runs_statement
from stepwell.store.sqlite.session import SqliteSession
from stepwell.store.sqlite.sql import bulk, migrations, sql
from stepwell.store.sqlite.store import SqliteStore
from tests.support import Bench, snapshot

from .filling import NOW, entry, fill, loading, put, run

SQL = Path(sys.modules[SqliteStore.__module__].__file__ or "").parent / "sql"


def opened(folder: Path) -> SqliteStore:
    store = SqliteStore(folder / "s.sqlite", sync="normal")
    store.migrate()
    return store


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    bench = Bench(opened(tmp_path))
    lease = bench.turn(input='"' + "x" * 70_000 + '"').lease
    bench.record(lease, 1, ActionScheduled("m:f"))
    bench.do(c.Say(lease, 0, (("stdout", "hi"),)))
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s"),)))
    before = snapshot(bench.store)
    bench.close()
    bench.store.close()
    again = Bench(opened(tmp_path), clock=bench.clock)
    assert snapshot(again.store) == before
    assert again.record(lease, 1, ActionScheduled("m:f")).first == 3
    again.start("next")
    assert again.run("next").no == 3
    again.close()


def test_numbers_stay_used_after_deletion_and_opening_again(tmp_path: Path) -> None:
    bench = Bench(opened(tmp_path))
    bench.start("a")
    bench.do(c.Terminate("a"))
    bench.clock.tick(31 * 86_400_000)
    bench.do(c.Prune())
    bench.close()
    again = Bench(opened(tmp_path), clock=bench.clock)
    assert again.start("b").run_no == 2
    again.close()


# ── migrations ───────────────────────────────────────────────────────────────────────────────────────────────────


def ledger(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("select no, name, length(hash) from migration order by no").fetchall()


def test_migrations_are_applied_once_and_noted(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.migrate()
    opened(tmp_path)
    assert ledger(store.path) == [(no, name, 64) for no, name, _ in migrations()]


def test_two_threads_may_migrate_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    gate = threading.Barrier(4)

    def migrate() -> None:
        gate.wait()
        try:
            opened(tmp_path)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(ledger(tmp_path / "s.sqlite")) == len(migrations())


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    script = f"from stepwell.store.sqlite.store import SqliteStore as S; S({str(path)!r}).migrate()"
    processes = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert len(ledger(path)) == len(migrations())


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update migration set hash = 'x' where no = 1", "not what migration 1 of this program makes"),
        ("insert into migration values (999, 'future', 'x', 'now')", "newer than this program"),
    ],
)
def test_a_foreign_schema_is_refused_and_left_alone(tmp_path: Path, statement: str, message: str) -> None:
    store = opened(tmp_path)
    with closing(sqlite3.connect(store.path)) as db:
        db.execute(statement)
        db.commit()
    before = ledger(store.path)
    with pytest.raises(Unavailable, match=message) as caught:
        store.migrate()
    assert caught.value.hint
    assert ledger(store.path) == before


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("this is no database, but a letter to my aunt " * 50)
    with pytest.raises(Unavailable, match=r"s\.sqlite") as caught:
        SqliteStore(path).migrate()
    assert caught.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "s.sqlite")


# ── the schema is the structs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", ROWS)
def test_columns_are_the_fields(tmp_path: Path, row: str) -> None:
    with closing(opened(tmp_path).connect()) as db:
        named = [column[1] for column in db.execute(f'pragma table_info("{row}")')]
    numbered = row in ("task", "change")
    assert sorted(named[1:] if numbered else named) == sorted(columns(row)), "these have a number of their own, too"


def test_a_task_beyond_the_packed_number_collides_with_no_other(tmp_path: Path) -> None:
    limit = 1 << 20
    assert limit > 1_000_000, "the highest journal_entries fits below the bits of the run"


# ── sharing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cache_is_dropped_when_another_connection_has_committed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    one, two = store.session("one"), store.session("two")
    fill(one, run(1))
    with loading(one) as s:
        kept = s.runs([1])[0]
    with loading(one) as s:
        assert s.runs([1])[0] is kept, "own commits keep the cache"
    fill(two, run(2))
    with loading(one) as s:
        assert s.runs([1])[0] is not kept
    one.close()
    two.close()


def test_whether_a_commit_happened_is_told_by_the_lanes_row(tmp_path: Path) -> None:
    store = opened(tmp_path)
    session = store.session("lane")
    fill(session, run(1))
    assert session.committed() is True, "what was flushed last is there"
    unit = Unit(Settings())
    put(unit, run(2))
    session.begin()
    session.flush(unit, NOW)
    session._db.execute("rollback")
    session._unlock()
    assert session.committed() is False, "what was flushed last is not there"
    fill(session, run(2))
    with loading(session) as s:
        assert sorted(row.no for row in s.runs([1, 2])) == [1, 2]
    session.close()


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
def grown(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    """Statistics of a grown store would only help; without them the planner has to go by the schema."""
    return opened(tmp_path_factory.mktemp("plans")).connect()


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


def test_one_bad_row_among_many_refuses_them_all(tmp_path: Path) -> None:
    store = opened(tmp_path)
    session = store.session("lane")
    fill(session, run(1), entry(1, 50))
    before = snapshot(store)
    session.begin()
    unit = Unit(Settings())
    unit.runs.seed(1, run(1))
    put(unit, *(entry(1, seq) for seq in range(1, 70)))
    with pytest.raises(Refused, match="UNIQUE"):
        session.flush(unit, NOW)
    session.rollback()
    assert snapshot(store) == before


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


def test_what_goes_wrong_after_a_commit_is_not_told_as_a_failed_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: SqliteSession, unit: Unit) -> None:
        raise ValueError("a bug in the cache")

    bench = Bench(opened(tmp_path))
    monkeypatch.setattr(SqliteSession, "_remember", broken)
    assert bench.start("r").created
    assert not bench.start("r").created, "it is there"
    assert "the row cache starts again" in caplog.text

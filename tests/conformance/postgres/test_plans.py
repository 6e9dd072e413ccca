"""No statement looks at all of a table that has grown: a query-plan test that fails when an index stops being used."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell.model.rows import Blob, Message, Output, Request
from stepwell.store.port import RunFilter
from stepwell.store.postgres.exchange import Exchange
from stepwell.store.postgres.reader import runs_statement
from stepwell.store.postgres.sql import PLANNED_ONCE, Anew, sql
from stepwell.store.postgres.store import PostgresStore
from tests.support.heap import pile
from tests.support.stores import migrated

from ..filling import NOW, entry, event, fill, run, task

#: Statements that may look at all rows of a table, and why.
WHOLE = {
    "list/task_counts": "a metric that counts every open task",
    "list/run_counts": "a metric that counts every open run",
    "list/orphans": "the doctor looks at everything",
    "list/others": "a row for each lane",
}
#: Statements that walk along an index, and why they stop soon.
WALKS = {
    "find/leased_by": "every lease, when a worker has died",
    "find/receivers": "the oldest messages, of a table of nothing else",
    "find/prunable_changes": "the newest changes that stay",
    "list/runs": "a page of the newest",
    "list/last_run": "the newest",
}
#: From one end of an index to the other.
WALK = re.compile(r"Index (Only )?Scan (?!.*\n +Index Cond)")
ROOT = Path(__file__).parents[3] / "src/stepwell/store/postgres/sql"
ACTS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix()
    for name in ("find", "load", "list")
    for path in (ROOT / name).iterdir()
)
MANY = 5_000
BUSY: tuple[dict[str, Any], ...] = (
    {"state": "leased", "lease_until": NOW, "worker": "w", "deadline": NOW},
    {"state": "due", "due_at": NOW},
    {"state": "blocked", "pool_key": "k"},
    {"state": "ready"},
)
SAMPLES = {
    "bigint": "1",
    "integer": "1",
    "text": "'a'",
    "bigint[]": "'{1,2}'",
    "text[]": "'{a}'",
    "json": "'[]'",
    "regclass": "'run'",
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A store where most rows are none that anybody looks for: parked tasks, waiting runs, old events."""
    numbers = range(1, MANY + 1)
    with migrated(tmp_path_factory.mktemp("plans")) as store, closing(store.connect()) as db:
        session = store.session("lane")
        fill(
            session,
            *(run(no, status="waiting", event_no=no, parent_no=no) for no in numbers),
            *(task(no, 1, state="parked") for no in numbers),
            *(task(no, k, **some) for k, some in enumerate(BUSY, 2) for no in numbers[:: MANY // 500]),
            *(entry(no, 1) for no in numbers),
            *(event(no, matched=1) for no in numbers),
            *(Output(no, 1, 1, "stdout", NOW, "x") for no in numbers),
            *(Blob(no, 0, "h", "x") for no in numbers),
            *(Message(0, "main", no, 1, 1, "signal", None, NOW, "{}") for no in numbers),
            *(Request("main", f"k{no}", "h", "1", NOW) for no in numbers),
        )
        session.close()
        changes = "select 'main', no, 1, '' from generate_series(1, 5000) as no"
        db.execute(f"insert into change (scope, pos, at, touched) {changes}".encode())
        db.execute(b"analyze run, task, entry, event, output, blob, message, request, change")
        yield db


def plan(db: psycopg.Connection[tuple[Any, ...]], statement: str) -> str:
    """How the server would run it for a lane, with values of the types that it asks for."""
    with db.transaction(force_rollback=True):
        if not isinstance(statement, Anew):
            db.execute(sql("plan/keep"), prepare=False)
        db.execute(f"prepare looked_at as {statement}".encode(), prepare=False)
        types = "select parameter_types::text[] from pg_prepared_statements where name = 'looked_at'"
        try:
            values = ", ".join(SAMPLES[kind] for kind in db.execute(types.encode()).fetchall()[0][0])
            call = f"explain execute looked_at{f'({values})' if values else ''}"
            steps = db.execute(call.encode(), prepare=False).fetchall()
        finally:
            db.execute(b"deallocate looked_at", prepare=False)
    return "\n".join(step for (step,) in steps)


@pytest.mark.parametrize("act", [act for act in ACTS if act not in WHOLE and act != "list/runs"])
def test_every_statement_uses_an_index(grown: psycopg.Connection[tuple[Any, ...]], act: str) -> None:
    steps = plan(grown, sql(act))
    scanned = set(re.findall(r"Seq Scan on (\w+)", steps))
    assert scanned <= {"pool", "manifest", "meta", "lane"}, steps


@pytest.mark.parametrize("act", [act for act in ACTS if act not in WHOLE | WALKS])
def test_no_statement_walks_through_an_index_for_rows_that_it_could_look_up(
    grown: psycopg.Connection[tuple[Any, ...]], act: str
) -> None:
    steps = plan(grown, sql(act))
    assert not WALK.search(steps), steps


@pytest.mark.parametrize(
    ("act", "index"),
    [
        ("find/ready", "task_ready"),
        ("find/ready_keys", "task_ready_key"),
        ("find/ready_of_keys", "task_ready_key"),
        ("find/groups", "task_ready"),
        ("find/blocked", "task_blocked"),
        ("find/blocked_keys", "task_blocked"),
        ("find/blocked_besides", "task_blocked"),
        ("find/receivers", "message_plain"),
        ("find/due", "task_due"),
        ("find/expired", "task_leased"),
        ("find/leased_by", "task_(leased|used)"),
        ("find/late", "task_deadline"),
        ("find/leased_counts", "task_used"),
        ("find/entries_of", "entry_seq"),
        ("find/prunable_requests", "request_expires"),
        ("load/children", "run_child"),
        ("load/event_runs", "run_event"),
        ("list/entries", "entry_seq"),
        ("list/output", "output_n"),
        ("list/changes", "change_pos"),
    ],
)
def test_it_is_the_index_that_was_made_for_it(grown: psycopg.Connection[tuple[Any, ...]], act: str, index: str) -> None:
    steps = plan(grown, sql(act))
    assert re.search(rf"\b{index}\b", steps), steps


@pytest.mark.parametrize(
    ("act", "index"), [("find/ready_keys", "task_ready_key task_used"), ("find/ready_of_keys", "task_ready_key")]
)
def test_it_is_the_index_of_keys_too_where_the_server_knows_of_few_tasks_that_are_ready(
    store: PostgresStore, act: str, index: str
) -> None:
    """It looked last when a handful was ready, and thousands came since."""
    with closing(store.session("lane")) as session, closing(store.connect()) as db:
        fill(session, *(task(no, pool_key=f"k{no % 50}", state="done" if no > 1 else "ready") for no in range(1, 300)))
        db.execute(b"analyze run, task")
        fill(session, *(task(no, pool_key="big") for no in range(300, 3_000)))
        steps = plan(db, sql(act))
    assert set(re.findall(r"using (task_\w+)", steps)) == set(index.split()), steps


@pytest.mark.parametrize(
    ("act", "state", "index"),
    [
        ("find/ready_keys", "ready", "task_ready_key task_used"),
        ("find/ready_of_keys", "ready", "task_ready_key"),
        ("find/blocked", "blocked", "task_blocked"),
        ("find/leased_counts", "leased", "task_used"),
    ],
)
def test_it_is_the_index_of_keys_too_where_the_server_has_never_looked(
    store: PostgresStore, act: str, state: str, index: str
) -> None:
    pile(store, 0, 20_000, "big", state)
    with closing(store.connect()) as db:
        steps = plan(db, sql(act))
    assert set(re.findall(r"using (task_\w+)", steps)) == set(index.split()), steps


@pytest.mark.parametrize("act", ["advance_run", "update_run_status", "update_run", "update_task", "update_event"])
def test_many_rows_are_changed_by_their_numbers(grown: psycopg.Connection[tuple[Any, ...]], act: str) -> None:
    steps = plan(grown, sql(f"flush/{act}"))
    assert "Seq Scan" not in steps, steps


@pytest.mark.parametrize(
    "where",
    [RunFilter(event_no=3), RunFilter(status="failed"), RunFilter(hold="paused"), RunFilter(result_status="x")],
    ids=str,
)
def test_lists_of_runs_use_the_index_of_their_filter(
    grown: psycopg.Connection[tuple[Any, ...]], where: RunFilter
) -> None:
    statement, values = runs_statement(where, None, 50)
    steps = "\n".join(
        step for (step,) in grown.execute(f"explain {statement}".encode(), values, prepare=False).fetchall()
    )
    assert re.search("run_(event|bad|held|result)", steps), steps


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with migrated(tmp_path_factory.mktemp("bare")) as store, closing(store.connect()) as db:
        yield db


@pytest.mark.parametrize("act", sorted(PLANNED_ONCE))
def test_a_plan_that_is_kept_is_the_same_on_empty_tables_as_on_full_ones(
    bare: psycopg.Connection[tuple[Any, ...]], grown: psycopg.Connection[tuple[Any, ...]], act: str
) -> None:
    assert not isinstance(sql(act), Anew)
    empty, full = (re.sub(r"  \(cost=.*\)", "", plan(db, sql(act))) for db in (bare, grown))
    assert empty == full
    assert "Seq Scan" not in empty
    assert not WALK.search(empty), "it walks through an index, which looks cheap on small tables"


def test_all_others_are_planned_anew_on_the_same_connection(store: PostgresStore) -> None:
    """For their values, and only they: what comes in the next round trip is not."""
    link = Exchange(store.connect(), keeps_plans=True)
    asked = "select current_setting('plan_cache_mode'), current_setting('enable_seqscan')"
    kept, anew = [("force_generic_plan", "off")], [("force_custom_plan", "on")]
    assert [link.rows(asked), link.rows(Anew(asked)), link.rows(asked)] == [kept, anew, kept]
    link.rows("begin")
    assert [one.rows for one in link.all((asked, ()), (Anew(asked), ()))] == [anew, anew]
    assert link.rows(asked) == kept
    with pytest.raises(psycopg.errors.DivisionByZero):
        link.rows(Anew("select 1 / 0"))
    link.rows("rollback")
    assert link.rows(asked) == kept
    link.db.close()

"""Holds what a storm on PostgreSQL left in tables, files and the database's log against the journals."""

import re
from collections import Counter
from contextlib import closing
from pathlib import Path

from stepwell.model.settings import Settings
from stepwell.store.port import scan_all
from stepwell.worker.local import open_store
from tests.crash.crew import outlive
from tests.crash.flow_judge import check_said, judge_flows
from tests.crash.pg_storm import Plan, Report, Storm
from tests.crash.workflow_judge import (
    Sea,
    Told,
    check_attempts,
    check_lawful,
    check_once,
    check_totals,
    check_voyage,
    judge_run,
    name_of,
)

SETTINGS = Settings(lost_leases=1_000)
FERRIES = ("sea:ferry", "sea:tug")
#: What a database says when it is killed, or its clients are, and what two meet who make one row or table at once.
EXPECTED = re.compile(
    r"FATAL:  the database system is (starting up|in recovery mode|not yet accepting connections|shutting down)"
    r"|FATAL:  connection to client lost"
    r"|ERROR:  canceling autovacuum task"  # it makes way where it cuts a table that somebody writes to
    r'|ERROR:  duplicate key value violates unique constraint "(run_pkey|run_id|event_pkey|event_id|request_pkey)"'
    r'|ERROR:  duplicate key value violates unique constraint "pg_(type_typname|class_relname)_nsp_index"'
    r'|ERROR:  (type|relation) "migration" already exists'
)


def run_storm(cwd: Path, plan: Plan) -> Report:
    """A storm, and all that must be true after it."""
    storm = Storm(cwd, plan)
    outlive(storm, judge)
    return storm.report


def judge(storm: Storm) -> None:
    """Everything that must be true after a storm: of its flows, of its workflows, of what the database said."""
    store = open_store(storm.server.url, SETTINGS)
    with closing(store.reader()) as reader:
        runs = list(scan_all(reader))
        storm.report.ended = Counter(run.status for run in runs)
        steps = {run.id: run for run in runs if run.kind == "step"}
        assert len(storm.report.flows.told) == storm.plan.events
        judge_flows(reader, steps, storm.steps, storm.report.flows, storm.crew)
        judge_workflows(storm, Sea(reader, [run for run in runs if run.kind != "step"], storm.lines))
    check_lawful(store, storm.url)
    check_log(storm.server.log)
    check_said(storm.cwd)


def judge_workflows(storm: Storm, sea: Sea) -> None:
    """As after a workflow storm, and what was called back has turned around once."""
    plan, report = storm.plan, storm.report.workflows
    voyages = {f"voyage-{number}" for number in range(plan.voyages)}
    ferries = {f"ferry-{number}" for number in range(plan.ferries)}
    assert storm.report.started == voyages | ferries
    assert voyages | ferries <= sea.told.keys(), "an acknowledged run is not there"
    assert Counter(told.run.name for told in sea.told.values() if told.run.name not in FERRIES) == Counter(
        {name: plan.voyages for name in ("sea:voyage", "sea:boat", "sea:log_book") if plan.voyages}
    )
    for run_id, told in sea.told.items():
        if told.run.name in FERRIES:
            check_canceled(told, sea, storm.report)
        else:
            judge_run(told, sea, report)
        if run_id in voyages:
            check_voyage(sea, told)
    check_totals(sea, report)


def check_canceled(told: Told, sea: Sea, whole: Report) -> None:
    """It ended once, canceled; a ferry that had sent for its tug has turned around once; nothing happened twice."""
    report = whole.workflows
    assert told.run.status == "canceled", (told.run.id, told.run.status, told.run.hold)
    report.entries += len(told.entries)
    check_once(told)
    check_attempts(told, report)
    rows = sorted(name for (run, name, _) in sea.rows.elements() if run == told.run.id)
    recorded = {name_of(one) for one in told.entries if one.kind == "step.completed"}
    assert rows == sorted(recorded), (told.run.id, rows, recorded)
    assert "back" in rows or not any(one.kind == "child.started" for one in told.entries), told.run.id
    report.mutations += len(rows)
    attempts = [line.attempt for line in sea.lines["action", told.run.id, "coal"]]
    assert len(set(attempts)) == len(attempts), (told.run.id, attempts)
    report.action_calls += len(attempts)


def check_log(log: str) -> None:
    """The database has said nothing that the product does not expect; above all it met no deadlock."""
    assert "deadlock detected" not in log, log[-4_000:]
    found = [line for line in log.splitlines() if re.search("(ERROR|FATAL|PANIC):", line) and not EXPECTED.search(line)]
    assert not found, found[:10]

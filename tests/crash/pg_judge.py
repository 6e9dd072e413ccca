"""Holds what a storm on PostgreSQL left in tables, files and the database's log against the journals."""

import asyncio
import re
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import psycopg

from stepwell.model.rows import Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, scan_all
from stepwell.worker.local import open_store
from tests.crash import flow_judge
from tests.crash.pg_storm import Plan, Report, Storm
from tests.crash.workflow_app import Line
from tests.crash.workflow_judge import (
    Sea,
    Told,
    check_attempts,
    check_once,
    check_totals,
    check_voyage,
    decode_line,
    judge_run,
    name_of,
)
from tests.server.support import environ, stepwell
from tests.support import nursery, offences

SETTINGS = Settings(lost_leases=1_000)
FERRIES = ("sea:ferry", "sea:tug")
#: What a database says when it is killed, or its clients are, and what two meet who make one row or table at once.
EXPECTED = re.compile(
    r"FATAL:  the database system is (starting up|in recovery mode|not yet accepting connections|shutting down)"
    r"|FATAL:  connection to client lost"
    r'|ERROR:  duplicate key value violates unique constraint "(run_pkey|run_id|event_pkey|event_id|request_pkey)"'
    r'|ERROR:  duplicate key value violates unique constraint "pg_(type_typname|class_relname)_nsp_index"'
    r'|ERROR:  (type|relation) "migration" already exists'
)


class Left(Sea):
    """All that is left of the workflows of a storm: journals, rows, lines."""

    def __init__(self, storm: Storm, reader: Reader, runs: list[Run]) -> None:
        self.told = {run.id: Told(run, reader.entries(run.no, limit=100_000)) for run in runs}
        self.rows = Counter[tuple[str, str, str]](rows_of(storm))
        self.lines: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
        for text in storm.lines.read_bytes().splitlines():
            line = decode_line(text)
            self.lines[line.what, line.run, line.name].append(line)


def rows_of(storm: Storm) -> list[tuple[str, str, str]]:
    with psycopg.connect(storm.server.conninfo) as db:
        return db.execute(b"select run, name, value from public_app.effect").fetchall()


def run_storm(cwd: Path, plan: Plan) -> Report:
    """A storm, and all that must be true after it."""
    storm = Storm(cwd, plan)
    try:
        asyncio.run(storm.rage())
        judge(storm)
    finally:
        storm.clear()
    print(f"\nseed {plan.seed}: {storm.report}")
    return storm.report


def judge(storm: Storm) -> None:
    """Everything that must be true after a storm."""
    store = open_store(storm.server.url, SETTINGS)
    with closing(store.reader()) as reader:
        runs = list(scan_all(reader))
        storm.report.ended = Counter(run.status for run in runs)
        steps = {run.id: run for run in runs if run.kind == "step"}
        judge_flows(storm, reader, steps)
        judge_workflows(storm, Left(storm, reader, [run for run in runs if run.kind != "step"]))
    broken = offences(store, SETTINGS)
    assert broken == [], broken[:20]
    said = nursery.run(stepwell("doctor", "--db", storm.url), env=environ(STEPWELL_LOST_LEASES="1000"), timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr
    check_log(storm.server.log)
    for log in storm.cwd.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-8_000:]


def judge_flows(storm: Storm, reader: Reader, runs: dict[str, Run]) -> None:
    """As after a flow storm: attempts are what they wrote down themselves, and no two of a run overlap."""
    report, lived = storm.report.flows, flow_judge.read_logs(storm.steps)
    told = {run_id for ids in report.told.values() for run_id in ids}
    assert len(report.told) == storm.plan.events
    assert told <= runs.keys(), "an acknowledged run is not there"
    known: set[str] = set()
    for run in runs.values():
        attempts = flow_judge.read_attempts(run, reader.entries(run.no, limit=100_000))
        flow_judge.check_run(run, attempts)
        flow_judge.check_attempts(run, attempts, lived, report)
        known |= {one.id for one in attempts}
    assert lived.keys() <= known, f"ran without an attempt: {lived.keys() - known}"
    flow_judge.check_chains(reader, runs, told)
    assert storm.leftovers({mark for one in lived.values() for mark in one.marks}) == []


def judge_workflows(storm: Storm, sea: Left) -> None:
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

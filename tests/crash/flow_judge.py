"""Holds what the steps of a flow storm wrote down against the journals that the kernel kept."""

from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from stepwell.model.entries import ENDS
from stepwell.model.ids import attempt_id
from stepwell.model.rows import Entry, Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, scan_all
from tests.crash.crew import Crew, outlive
from tests.crash.flow_packages import DOOMED
from tests.crash.flow_storm import Plan, Report, Storm
from tests.server.support import database
from tests.support import durable, offences

#: What steps exit with when they say that they fail.
FAILS = (3, 4, 9)


class Lived(Struct):
    """What one attempt wrote down itself: its lines, and the first and last nanosecond of anybody in it."""

    whats: Counter[str]
    first: int
    last: int
    marks: set[str]


class Attempt(Struct):
    """What the journal says of one attempt. `how`: expired, released, failed, completed."""

    id: str
    how: str = ""
    error: dict[str, Any] = field(default_factory=dict)


def run_storm(cwd: Path, plan: Plan) -> Report:
    """A storm, and all that must be true after it."""
    storm = Storm(cwd, plan)
    outlive(storm, judge)
    return storm.report


def judge(storm: Storm) -> None:
    """Everything that must be true after a storm."""
    store = durable(database(storm.cwd))
    with closing(store.reader()) as reader:
        judge_flows(reader, {run.id: run for run in scan_all(reader)}, storm.logs, storm.report, storm.crew)
    assert storm.crew.guards, "no worker had a guard, or none was found"
    assert offences(store, Settings(lost_leases=1_000)) == []
    check_said(storm.cwd)


def judge_flows(reader: Reader, runs: dict[str, Run], logs: Path, report: Report, crew: Crew) -> None:
    """Attempts are what they wrote down themselves, no two of a run overlap, and nobody is left of them."""
    lived = read_logs(logs)
    told = {run_id for ids in report.told.values() for run_id in ids}
    assert told <= runs.keys(), "an acknowledged run is not there"
    known: set[str] = set()
    for run in runs.values():
        attempts = read_attempts(run, reader.entries(run.no, limit=100_000))
        check_run(run, attempts)
        check_attempts(run, attempts, lived, report)
        known |= {one.id for one in attempts}
    assert lived.keys() <= known, f"ran without an attempt: {lived.keys() - known}"
    check_chains(reader, runs, told)
    assert crew.leftovers({mark for one in lived.values() for mark in one.marks}) == []


def check_said(folder: Path) -> None:
    """No process of a storm met an error that it did not know."""
    for log in folder.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-8_000:]


def read_logs(folder: Path) -> dict[str, Lived]:
    """By attempt id. An empty file is of one that was killed between its opening and its first line."""
    found = {}
    for path in folder.iterdir():
        lines = [line.split() for line in path.read_text().splitlines()]
        if not lines:
            continue
        assert all(len(line) == 4 for line in lines), f"{path.name}: a torn line"
        stamps = [int(line[1]) for line in lines]
        found[path.name] = Lived(Counter(line[0] for line in lines), min(stamps), max(stamps), {x[3] for x in lines})
    return found


def read_attempts(run: Run, entries: list[Entry]) -> list[Attempt]:
    """The attempts of a run in order: each ended with a reason before the next one started; one end of the run."""
    attempts: list[Attempt] = []
    ends = 0
    for entry in entries:
        body = msgspec.json.decode(entry.data)
        if entry.kind == "attempt.started":
            assert all(one.how for one in attempts), f"{run.id}: two attempts at once"
            attempts.append(Attempt(attempt_id(run.id, body["task"], body["attempt"])))
        elif entry.kind == "attempt.ended":
            attempts[-1].how, attempts[-1].error = body["reason"], body.get("error") or {}
        elif entry.kind in ENDS:
            ends += 1
            attempts[-1].how = "completed" if entry.kind == "run.completed" else "failed"
            attempts[-1].error = body.get("error") or {}
    assert ends == 1, f"{run.id} ended {ends} times"
    assert all(one.how for one in attempts), f"{run.id}: an attempt without an end"
    assert len({one.id for one in attempts}) == len(attempts)
    return attempts


def check_run(run: Run, attempts: list[Attempt]) -> None:
    """Completes, unless it is of a kind that cannot; a lost lease or a release uses up no retry."""
    kind = run.name.partition("/")[0]
    failures = sum(one.how == "failed" for one in attempts)
    if kind in DOOMED:
        assert (run.status, failures) == ("failed", DOOMED[kind]), (run.id, run.status, attempts)
        return
    assert run.status == "completed", (run.id, run.error)
    assert msgspec.json.decode(run.result or "")["message"] == attempts[-1].id


def check_attempts(run: Run, attempts: list[Attempt], lived: dict[str, Lived], report: Report) -> None:
    """Each attempt's end in the journal is what the attempt itself knows; no two overlap."""
    report.ends[run.status] += 1
    there = [lived[one.id] for one in attempts if one.id in lived]
    for before, after in pairwise(there):
        assert before.last < after.first, f"{run.id}: two attempts at once, for {before.last - after.first} ns"
    for one in attempts:
        report.attempts[one.how] += 1
        mine = lived.get(one.id)
        if mine is None:
            report.unseen += 1
            assert one.how in ("expired", "released") or one.id in report.struck, f"{one} never began"
        else:
            doubt = check_attempt(one, mine, one.id in report.struck)
            assert doubt is None, f"{doubt}: {one} {mine}"


def check_attempt(one: Attempt, mine: Lived, struck: bool) -> str | None:
    """What is wrong with what the journal says of an attempt that ran."""
    whats, code = mine.whats, one.error.get("exitCode")
    if whats["start"] != 1 or whats["end"] + whats["fail"] > 1:
        return "it ran more than once"
    if one.how == "completed" and not whats["end"]:
        return "completed, and never came to its end"
    if one.how == "failed" and one.error["type"] == "exit":
        if code == -9:
            return None if struck else "ended by a kill that was none of ours"
        return None if whats["fail"] and code in FAILS else "failed, and does not know of it"
    if one.how == "failed" and one.error["type"] not in ("timeout", "no_result", "canceled"):
        return "failed for no reason"
    return None


def check_chains(reader: Reader, runs: dict[str, Run], told: set[str]) -> None:
    """Each completed chain sent one event, which has one run; nothing else sent any."""
    causes: Counter[str] = Counter()
    after = 0
    while page := reader.scan_events(after=after):
        causes.update(one.cause for one in page if one.cause in runs)
        after = page[-1].no
    chains = {run.id for run in runs.values() if run.name == "chain/go"}
    assert causes == dict.fromkeys(chains, 1)
    assert len(runs) == len(told) + len(chains)

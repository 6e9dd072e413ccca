"""Holds what a workflow storm left in the app's tables and in its log against the journals that the kernel kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.model.rows import Entry, Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, Store, scan_all
from tests.crash.crew import outlive
from tests.crash.flow_judge import check_said
from tests.crash.workflow_app import ATTEMPTS, DOOMED_ATTEMPTS, Line
from tests.crash.workflow_storm import Plan, Report, Storm
from tests.server.support import environ, stepwell
from tests.support import durable, durable_url, nursery, offences

#: The mutations that each workflow calls, by the names of their rows; its actions; its inline steps.
MUTATIONS = {
    "sea:voyage": ("begin", "log", "order", "end"),
    "sea:boat": ("fish",),
    "sea:log_book": ("entry",),
    "sea:errand": ("begin", "end"),
}
ACTIONS = {
    "sea:voyage": ("cargo", "left", "doomed", "rope", "sail", "oar"),
    "sea:boat": ("catch",),
    "sea:log_book": (),
    "sea:errand": ("bread", "milk"),
}
STEPS = {
    "sea:voyage": ("token", "course", "watch", "time", "ahead", "pump", "last"),
    "sea:boat": ("home",),
    "sea:log_book": (),
    "sea:errand": ("token", "watch", "road"),
}
#: The row of what is called at the end of a run that was started so.
AT_END = "arrived"
#: Kinds of entries that a key has one of; a step either completes or fails, and so does an action.
STEP_ENDS, ACTION_ENDS = ("step.completed", "step.failed"), ("action.completed", "action.failed", "action.canceled")
BEGINS = ("action.scheduled", "child.started", "timer.fired", "state.set", "signal.sent", "event.sent")
decode_line = msgspec.json.Decoder(Line).decode


class Told(Struct):
    """One run's journal, read for what a storm may break."""

    run: Run
    entries: list[Entry]

    def keys(self, *kinds: str) -> Counter[str]:
        """How often each key stands at entries of these kinds."""
        return Counter(one.key for one in self.entries if one.kind in kinds and one.key is not None)

    def body(self, entry: Entry) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.json.decode(entry.data)
        return body

    def result(self, name: str) -> Any:
        """What was recorded of the step of a name."""
        return next(
            self.body(one)["result"] for one in self.entries if one.kind == "step.completed" and name_of(one) == name
        )


class Sea:
    """All that is left of a storm, or of one run: journals, rows, lines."""

    def __init__(self, reader: Reader, runs: Iterable[Run], log: Path) -> None:
        self.told = {run.id: Told(run, reader.entries(run.no, limit=100_000)) for run in runs}
        found = reader.app.execute("select run, name, value from effect", (), 1_000_000)
        self.rows = Counter(tuple(row) for row in found.rows)
        self.lines: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
        for text in log.read_bytes().splitlines():
            line = decode_line(text)
            self.lines[line.what, line.run, line.name].append(line)


def sea_of(path: Path, log: Path) -> Sea:
    """All that is in a store, and in a log."""
    with closing(durable(path).reader()) as reader:
        return Sea(reader, scan_all(reader), log)


def run_storm(folder: Path, plan: Plan) -> Report:
    """A storm, and all that must be true after it."""
    storm = Storm(folder, plan)
    outlive(storm, judge)
    return storm.report


def judge(storm: Storm) -> None:
    """Everything that must be true after a storm."""
    sea, plan = sea_of(storm.path, storm.log), storm.plan
    voyages = {f"voyage-{number}" for number in range(plan.voyages)}
    assert storm.acknowledged() == voyages
    boats = {f"{one}.boat" for one in voyages}
    books = {one.run.id for one in sea.told.values() if one.run.name == "sea:log_book"}
    assert sea.told.keys() == voyages | boats | books
    assert len(books) == len(voyages)
    judge_all(sea, storm.report)
    for run_id in voyages:
        check_voyage(sea, sea.told[run_id])
    check_lawful(durable(storm.path), durable_url(storm.path))
    assert storm.crew.leftovers(set()) == []
    check_said(storm.folder)


def judge_all(sea: Sea, report: Report) -> None:
    """What must be true of every run, whatever it does."""
    for told in sea.told.values():
        judge_run(told, sea, report)
    check_totals(sea, report)


def judge_run(told: Told, sea: Sea, report: Report) -> None:
    """What must be true of a run that comes to its end."""
    assert told.run.status == "completed", (told.run.id, told.run.error, told.run.hold)
    report.entries += len(told.entries)
    check_once(told)
    check_attempts(told, report)
    check_mutations(told, sea, report)
    check_actions(told, sea, report)
    check_steps(told, sea, report)


def check_totals(sea: Sea, report: Report) -> None:
    """Nothing is there but what runs know of."""
    assert sea.rows.total() == report.mutations, "a row of nobody"
    assert sum(map(len, sea.lines.values())) == report.action_calls + report.step_calls, "a line of nobody"


def check_lawful(store: Store, url: str) -> None:
    """The doctor finds nothing, here and as a command."""
    broken = offences(store, Settings(lost_leases=1_000))
    assert broken == [], broken[:20]
    said = nursery.run(stepwell("doctor", "--db", url), env=environ(STEPWELL_LOST_LEASES="1000"), timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr


def name_of(entry: Entry) -> str:
    """The name of the step that an entry is of."""
    return (entry.key or "").rpartition("/")[2].partition("#")[0]


def check_once(told: Told) -> None:
    """Nothing is recorded twice: one result a step, one end an action, one start and one end a child and a run."""
    once = told.keys(*STEP_ENDS, *BEGINS) | told.keys(*ACTION_ENDS) | told.keys("child.ended")
    assert set(once.values()) <= {1}, (told.run.id, once.most_common(3))
    assert sum(one.kind.startswith("run.c") and one.kind != "run.created" for one in told.entries) == 1


def check_attempts(told: Told, report: Report) -> None:
    """No attempt and no epoch of a task twice; each attempt of a task follows the end of the one before."""
    last: dict[int, tuple[int, int]] = {}
    open_: dict[int, str] = {}
    for entry in told.entries:
        body = told.body(entry)
        if entry.kind == "attempt.started":
            task, now = body["task"], (body["attempt"], body["epoch"])
            assert task not in open_, f"{told.run.id}: two attempts of task {task} at once"
            before = last.get(task, (0, 0))
            assert now == (before[0] + 1, before[1] + 1), (told.run.id, task, before, now)
            last[task], open_[task] = now, body["task_kind"]
        elif entry.kind == "attempt.ended":
            report.attempts[f"{open_.pop(body['task'])} {body['reason']}"] += 1
        elif entry.kind in ("action.completed", "action.failed"):
            report.attempts[f"{open_.pop(body['task'])} ended"] += 1
        elif entry.kind == "run.parked":
            report.attempts[f"{open_.pop(1)} parked"] += 1


def check_mutations(told: Told, sea: Sea, report: Report) -> None:
    """Each mutation's row is there once, with what the run knows of it."""
    rows = {name: value for (run, name, value) in sea.rows if run == told.run.id}
    assert all(sea.rows[told.run.id, name, value] == 1 for name, value in rows.items()), f"a row is there twice: {rows}"
    report.mutations += len(rows)
    ended = rows.pop(AT_END, None)
    assert ended == (f"success of {number_of(told)}" if told.run.name == "sea:voyage" else None), (told.run.id, ended)
    assert sorted(rows) == sorted(MUTATIONS[told.run.name]), (told.run.id, rows)
    assert all(told.result(name) == f"{name} stowed" for name in rows)


def check_actions(told: Told, sea: Sea, report: Report) -> None:
    """Each action began at least once, no attempt of it twice, none that the journal does not know."""
    scheduled = {name_of(one): one.seq for one in told.entries if one.kind == "action.scheduled"}
    assert sorted(scheduled) == sorted(ACTIONS[told.run.name])
    for name, task in scheduled.items():
        bodies = [told.body(one) for one in told.entries if one.kind.startswith("attempt.")]
        started = {body["attempt"] for body in bodies if body["task"] == task and "reason" not in body}
        failed = [body for body in bodies if body["task"] == task and body.get("reason") == "failed"]
        lines = [line.attempt for line in sea.lines["action", told.run.id, name]]
        assert lines, f"{told.run.id}: {name} never began"
        assert len(set(lines)) == len(lines), f"{told.run.id}: an attempt of {name} began twice: {lines}"
        assert set(lines) <= started, (told.run.id, name, lines, started)
        assert max(started) in lines, f"{told.run.id}: the attempt of {name} that ended never began"
        most = DOOMED_ATTEMPTS if name == "doomed" else ATTEMPTS
        assert len(failed) < most, (told.run.id, name, failed)
        report.actions, report.action_calls = report.actions + 1, report.action_calls + len(lines)


def check_steps(told: Told, sea: Sea, report: Report) -> None:
    """Each step ran; once its result was recorded, nobody began it again who had the lease."""
    recorded = {name_of(one): one for one in told.entries if one.kind == "step.completed"}
    lost = lost_at(told)
    for name in STEPS[told.run.name]:
        lines = sea.lines["step", told.run.id, name]
        assert lines, f"{told.run.id}: {name} never ran"
        late = [line for line in lines if line.at > recorded[name].at and line.at < lost.get(line.pid, line.at + 1)]
        assert not late, f"{told.run.id}: {name} ran after it was recorded: {late} {recorded[name]}"
        report.steps, report.step_calls = report.steps + 1, report.step_calls + len(lines)


def lost_at(told: Told) -> dict[int, int]:
    """When a process lost the run's lease, by its pid: one that was stopped, or starved, learns of it too late."""
    lost: dict[int, int] = {}
    holder = 0
    for entry in told.entries:
        body = told.body(entry)
        if entry.kind == "attempt.started" and body["task_kind"] == "turn":
            holder = int(body["worker"].split(":")[-2])
        elif entry.kind == "attempt.ended" and body["task_kind"] == "turn" and body["reason"] == "expired":
            lost.setdefault(holder, entry.at)
    return lost


def attempts_of(told: Told, name: str) -> int:
    """How often an action was begun; an attempt whose lease was lost counts, though it uses up no retry."""
    task = next(one.seq for one in told.entries if one.kind == "action.scheduled" and name_of(one) == name)
    return sum(told.body(one)["task"] == task for one in told.entries if one.kind == "attempt.started")


def number_of(told: Told) -> str:
    return told.run.id.removeprefix("voyage-")


def check_voyage(sea: Sea, told: Told) -> None:
    """The result is that of a voyage that nobody disturbed."""
    run, number, boat = told.run, number_of(told), sea.told[f"{told.run.id}.boat"]
    result = msgspec.json.decode(run.result or "")
    book = sea.told[result["log book"]]
    assert result == {
        "number": number,
        "token": told.result("token"),
        "cargo": "cargo traded",
        "watch": "watch watched",
        "left": "left traded",
        "ahead": "land",
        "log": "log stowed",
        "boat": f"boat {number} home",
        "flag": f"{number} in sight",
        "log book": book.run.id,
        "order": f"order of {run.id}",
        "doomed": f"OSError after {attempts_of(told, 'doomed')}",
        "pump": "pump pumped",
        "gear": "rope weighed, sail weighed, oar weighed",
        "stowed": "3",
        "last": told.result("last"),
    }
    assert boat.run.parent_no == run.no
    assert msgspec.json.decode(book.run.result or "") == run.id
    assert told.result("token") != told.result("last")
    assert sum(one.kind == "signal.received" for one in told.entries) == 2

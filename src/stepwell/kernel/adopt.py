"""Adopting: what another system has already done becomes history here, with its ids and its times.

The journal is written as if it had happened here, so an adopted run is a run like others: the laws hold for it, and it
can be replayed and restarted.
"""

from stepwell.kernel import check
from stepwell.kernel.events import check_event, known_event, link, store
from stepwell.kernel.journal import append
from stepwell.kernel.output import keep
from stepwell.kernel.runs import create, end
from stepwell.kernel.tasks import move
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Accepted, AdoptedRun, AdoptEvent
from stepwell.model.entries import AttemptStarted, Body, RunCanceled, RunCompleted, RunCreated, RunFailed, raw
from stepwell.model.rows import Event, Run


def adopt_event(unit: Unit, command: AdoptEvent, now: int) -> Accepted:
    """`AdoptEvent`: all of it or nothing; an event that is there is left as it is."""
    check_event(unit, command.scope, command.event)
    check.name("worker", command.worker)
    check.whole("created_at", command.created_at, 0, now)
    known = known_event(unit, command.scope, command.event)
    if known is not None:
        return Accepted("present", known.id, list(unit.event_runs.get(known.no) or ()), 0)
    first = [run for run in command.runs if run.replay == 0]
    replays = max((run.replay for run in command.runs), default=0)
    event = store(unit, command.scope, command.event, command.created_at, matched=len(first), replays=replays)
    firsts = {(run.flow, run.step): run.id for run in first}
    for run in command.runs:
        _check(unit, command.scope, run, now)
        _adopt(unit, command, event, run, firsts)
    run_ids = [run.id for run in command.runs]
    link(unit, event.no, run_ids)
    return Accepted("adopted", event.id, run_ids, len(first))


def _check(unit: Unit, scope: str, run: AdoptedRun, now: int) -> None:
    check.run_id(run.id)
    check.name("flow", run.flow)
    check.name("step", run.step)
    check.name("version", run.version, empty=True)
    check.whole("replay", run.replay, 0, 1_000_000)
    for what, value in (("result", run.result), ("error", run.error), ("tags", run.tags)):
        check.json(unit.settings, what, value)
    started_at = run.created_at if run.started_at is None else run.started_at
    if not 0 <= run.created_at <= started_at <= run.ended_at <= now:
        raise errors.Invalid(
            f"run {run.id}: the times must follow each other, and lie in the past", field="ended_at", run_id=run.id
        )
    if unit.run_by_id(scope, run.id) is not None:
        raise errors.Exists(f"run {run.id} exists", run_id=run.id)


def _adopt(
    unit: Unit, command: AdoptEvent, event: Event, given: AdoptedRun, firsts: dict[tuple[str, str], str]
) -> None:
    body = RunCreated(
        run_kind="step",
        name=f"{given.flow}/{given.step}",
        version=given.version,
        by=command.by,
        event_no=event.no,
        event=event.id,
        replay=given.replay,
        replays=firsts.get((given.flow, given.step)) if given.replay else None,
    )
    if given.tags is not None:
        body.tags = raw(given.tags)
    run = create(unit, command.scope, given.id, body, given.created_at, requires=given.requires)
    if given.started_at is not None:
        _attempt(unit, run, command.worker, given.started_at)
    for kind, text in given.output:
        keep(unit, unit.tasks.edit((run.no, run.turn)), int(given.started_at is not None), kind, text, given.ended_at)
    end(unit, run.no, _ended(given), given.ended_at)


def _attempt(unit: Unit, run: Run, worker: str, at: int) -> None:
    """The one attempt that there was; its lease is over in the same commit."""
    task = move(unit, (run.no, run.turn), "leased", at)
    task.epoch = task.attempt = 1
    append(unit, run.no, AttemptStarted(task.k, task.kind, 1, 1, worker), at)


def _ended(given: AdoptedRun) -> Body:
    if given.status == "completed":
        return RunCompleted(raw(given.result), given.result_status)
    if given.status == "canceled":
        return RunCanceled(by="imported")
    if given.status != "failed":
        hint = "Only runs that have ended can be adopted: completed, failed or canceled."
        raise errors.Invalid(f"run {given.id} is {given.status!r}", field="status", run_id=given.id, hint=hint)
    failed = RunFailed(raw(given.error), result_status=given.result_status)
    if given.result is not None:
        failed.result = raw(given.result)
    return failed

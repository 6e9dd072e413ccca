"""Events: accepted with their matches and their runs in one commit, or not at all (law 5).

An event comes from outside, or from the result of a run: then it is accepted in the commit that ends that run.
"""

import msgspec
from msgspec import UNSET

from stepwell.kernel import check
from stepwell.kernel.runs import create
from stepwell.kernel.tasks import check_place, check_retry
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import (
    Accepted,
    AcceptEvent,
    Emission,
    Emitted,
    Match,
    NewEvent,
    ReplayEvent,
    Revision,
    SyncManifests,
)
from stepwell.model.entries import RunCreated, raw
from stepwell.model.ids import flow_run_id
from stepwell.model.rows import Event, Manifest, Run


def accept_event(unit: Unit, command: AcceptEvent, now: int) -> Accepted:
    """`AcceptEvent`: the same id and body again gives the same runs; another body is a conflict.

    A step that a fault kept from being compared with the event is made up for when the event comes again.
    """
    check_event(unit, command.scope, command.event, command.misses)
    known = known_event(unit, command.scope, command.event)
    if known is not None:
        started = _make_up(unit, known, command, now)
        return Accepted("duplicate", known.id, list(unit.event_runs.get(known.no) or ()), started)
    _check_revision(unit, command.scope, command.manifests_at)
    event = store(unit, command.scope, command.event, now, matched=len(command.matches), misses=command.misses)
    run_ids = _start(unit, event, command.matches, 0, command.by, now)
    return Accepted("accepted", event.id, run_ids, len(run_ids))


def _make_up(unit: Unit, known: Event, command: AcceptEvent, now: int) -> int:
    """Starts the matches that faults hid the first time; answers how many."""
    hidden = _hidden(known.misses)
    matches = tuple(one for one in command.matches if hidden & {(one.flow, one.step), (one.flow, "*")})
    ids = [flow_run_id(known.scope, known.id, one.flow, one.step, 0) for one in matches]
    matches = tuple(
        one for one, run_id in zip(matches, ids, strict=True) if unit.run_by_id(known.scope, run_id) is None
    )
    if not matches:
        return 0
    _check_revision(unit, known.scope, command.manifests_at)
    event = unit.events.edit((known.scope, known.id))
    event.matched += len(matches)
    event.misses = command.misses
    return len(_start(unit, event, matches, 0, command.by, now))


def _hidden(misses: str | None) -> set[tuple[str, str]]:
    """(flow, step) of what could not be compared with the event; step * stands for all of a flow."""
    return {(one["flow"], one["step"]) for one in _faults(misses)}


def _made_up(misses: str | None, matches: tuple[Match, ...]) -> str | None:
    """The misses without the faults of steps that a replay runs: they are not to run a second time."""
    run = {(one.flow, step) for one in matches for step in (one.step, "*")}
    gone = [one for one in _faults(misses) if (one["flow"], one["step"]) in run]
    if misses is None or not gone:
        return misses
    left = [one for one in msgspec.json.decode(misses) if one not in gone]
    return msgspec.json.encode(left).decode() if left else None


def _faults(misses: str | None) -> list[dict[str, str]]:
    if misses is None or '"fault"' not in misses:
        return []
    return [one for one in msgspec.json.decode(misses) if isinstance(one, dict) and one.get("fault") is True]


def known_event(unit: Unit, scope: str, new: NewEvent) -> Event | None:
    """The stored event of this id. Raises `Conflict` if its body is another."""
    before = unit.events.get((scope, new.id))
    if before is not None and before.body_hash != new.body_hash:
        raise errors.Conflict(f"event {new.id!r} was accepted before with another body", event_id=new.id)
    return before


def store(
    unit: Unit,
    scope: str,
    new: NewEvent,
    created_at: int,
    *,
    matched: int,
    replays: int = 0,
    misses: str | None = None,
    cause: Run | None = None,
) -> Event:
    """A new event row, not yet with runs."""
    number = unit.take_no("event")
    event = Event(
        no=number,
        scope=scope,
        id=new.id,
        type=new.type,
        body_hash=new.body_hash,
        source=new.source,
        occurred_at=new.occurred_at,
        received_at=new.received_at,
        matched=matched,
        replays=replays,
        created_at=created_at,
        payload=unit.spill(0, new.payload, number) or "",
        extra=new.extra,
        misses=misses,
        cause=None if cause is None else cause.id,
        depth=0 if cause is None else cause.depth + 1,
    )
    unit.events.put((scope, new.id), event)
    return event


def emit(unit: Unit, run: Run, emission: Emission | None, now: int) -> list[Accepted]:
    """Accepts what a run sends; answers for each event, those that were there already, too."""
    if emission is None or not emission.events:
        return []
    if emission.scope != run.scope:
        raise errors.Invalid(f"run {run.id} may not send events to scope {emission.scope!r}", field="scope")
    limit = unit.settings.event_depth
    if run.depth >= limit:
        hint = "Events that start each other for ever are stopped here; end the chain, or raise STEPWELL_EVENT_DEPTH."
        raise errors.TooLarge(
            f"run {run.id} stands at the end of a chain of {limit} events",
            what="event_depth",
            size=run.depth + 1,
            limit=limit,
            hint=hint,
        )
    _check_revision(unit, run.scope, emission.manifests_at)
    return [_emit_one(unit, run, one, now) for one in emission.events]


def _emit_one(unit: Unit, run: Run, one: Emitted, now: int) -> Accepted:
    check_event(unit, run.scope, one.event, one.misses)
    known = known_event(unit, run.scope, one.event)
    if known is not None:
        return Accepted("duplicate", known.id, list(unit.event_runs.get(known.no) or ()), 0)
    event = store(unit, run.scope, one.event, now, matched=len(one.matches), misses=one.misses, cause=run)
    run_ids = _start(unit, event, one.matches, 0, run.id, now)
    return Accepted("accepted", event.id, run_ids, len(run_ids))


def replay_event(unit: Unit, command: ReplayEvent, now: int) -> Accepted:
    """`ReplayEvent`: new runs of a stored event."""
    if unit.events.get((command.scope, command.event_id)) is None:
        raise errors.Unknown(f"no event {command.event_id!r}", event_id=command.event_id)
    _check_revision(unit, command.scope, command.manifests_at)
    event = unit.events.edit((command.scope, command.event_id))
    event.replays += bool(command.matches)
    event.misses = _made_up(event.misses, command.matches)
    run_ids = _start(unit, event, command.matches, event.replays, command.by, now)
    return Accepted("accepted", event.id, run_ids, len(run_ids))


def check_event(unit: Unit, scope: str, new: NewEvent, misses: str | None = None) -> None:
    """The bounds of an event."""
    check.run_id(new.id)
    check.name("type", new.type)
    check.name("scope", scope)
    check.text("receivedAt", new.received_at, 128)
    for field, value in (("source", new.source), ("occurredAt", new.occurred_at)):
        if value is not None:
            check.text(field, value, 1_024, empty=True)
    for what, value in (("payload", new.payload), ("extra", new.extra), ("misses", misses)):
        check.json(unit.settings, what, value)


def _check_revision(unit: Unit, scope: str, manifests_at: int) -> None:
    revision = unit.revisions.get(scope) or 0
    if manifests_at != revision:
        raise errors.Outdated(
            f"the event was matched against manifests {manifests_at}, present are {revision}", revision=revision
        )


def _start(unit: Unit, event: Event, matches: tuple[Match, ...], replay: int, by: str, now: int) -> list[str]:
    run_ids: list[str] = []
    for match in matches:
        check_place(match.pool, match.pool_key, match.priority)
        check_retry(match.retry)
        check.json(unit.settings, "tags", match.tags)
        if match.workflow is not None:
            check.name("workflow", match.workflow)
            check.name("version", match.version, empty=True)
        deadline = None if match.deadline_ms is None else now + match.deadline_ms
        check.time_ms("deadline", deadline)
        run_id = flow_run_id(event.scope, event.id, match.flow, match.step, replay)
        if unit.run_by_id(event.scope, run_id) is not None:
            raise errors.Exists(f"run {run_id} of {match.flow}/{match.step} exists", run_id=run_id)
        first = flow_run_id(event.scope, event.id, match.flow, match.step, 0)
        body = RunCreated(
            run_kind="step" if match.workflow is None else "workflow",
            name=match.workflow or f"{match.flow}/{match.step}",
            version=match.version,
            pool=match.pool,
            pool_key=match.pool_key,
            priority=match.priority,
            by=by,
            event_no=event.no,
            event=event.id,
            replay=replay,
            depth=event.depth,
            replays=first if replay else None,
            tags=UNSET if match.tags is None else raw(match.tags),
            deadline=deadline,
        )
        requires = match.requires if match.workflow is None else f"workflow:{match.workflow}"
        create(unit, event.scope, run_id, body, now, requires=requires, retry=match.retry)
        run_ids.append(run_id)
    link(unit, event.no, run_ids)
    return run_ids


def link(unit: Unit, event_no: int, run_ids: list[str]) -> None:
    """Adds runs to those of an event."""
    unit.event_runs.put(event_no, (*(unit.event_runs.get(event_no) or ()), *run_ids))


def sync_manifests(unit: Unit, command: SyncManifests, now: int) -> Revision:
    """`SyncManifests`: the revision goes up when anything changed."""
    check.name("scope", command.scope)
    changed = False
    given = {name: (version, digest, data) for name, version, digest, data in command.manifests}
    for name, (version, digest, data) in given.items():
        check.name("flow", name)
        check.json(unit.settings, "manifest", data)
        before = unit.manifests.get((command.scope, name))
        if before is None or before.hash != digest:
            changed = True
            unit.manifests.put((command.scope, name), Manifest(command.scope, name, version, digest, now, data))
    for key in [key for key in unit.manifests.rows if key[0] == command.scope and key[1] not in given]:
        if command.keeps is not None and key[1].startswith(command.keeps):
            continue
        changed = True
        unit.manifests.drop(key)
    revision = (unit.revisions.get(command.scope) or 0) + changed
    if changed:
        unit.revisions.put(command.scope, revision)
    return Revision(revision, changed)

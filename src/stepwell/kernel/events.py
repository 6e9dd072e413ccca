"""Events: accepted with their matches and their runs in one commit, or not at all (law 5)."""

from stepwell.kernel import check
from stepwell.kernel.runs import create
from stepwell.kernel.tasks import check_place, check_retry
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Accepted, AcceptEvent, Match, ReplayEvent, Revision, SyncManifests
from stepwell.model.entries import RunCreated
from stepwell.model.ids import flow_run_id
from stepwell.model.rows import Event, Manifest


def accept_event(unit: Unit, command: AcceptEvent, now: int) -> Accepted:
    """`AcceptEvent`: the same id and body again gives the same runs; another body is a conflict."""
    new = command.event
    _check_event(unit, command)
    before = unit.events.get((command.scope, new.id))
    if before is not None:
        if before.body_hash != new.body_hash:
            raise errors.Conflict(f"event {new.id!r} was accepted before with another body", event_id=new.id)
        return Accepted("duplicate", new.id, list(unit.event_runs.get(before.no) or ()), 0)
    _check_revision(unit, command.scope, command.manifests_at)
    number = unit.take_no("event")
    event = Event(
        no=number,
        scope=command.scope,
        id=new.id,
        type=new.type,
        body_hash=new.body_hash,
        source=new.source,
        occurred_at=new.occurred_at,
        received_at=new.received_at,
        matched=len(command.matches),
        replays=0,
        created_at=now,
        payload=unit.spill(0, new.payload, number) or "",
        extra=new.extra,
        misses=command.misses,
    )
    unit.events.put((command.scope, new.id), event)
    run_ids = _start(unit, event, command.matches, 0, command.by, now)
    unit.event_runs.put(number, tuple(run_ids))
    return Accepted("accepted", new.id, list(run_ids), len(run_ids))


def replay_event(unit: Unit, command: ReplayEvent, now: int) -> Accepted:
    """`ReplayEvent`: new runs of a stored event."""
    if unit.events.get((command.scope, command.event_id)) is None:
        raise errors.Unknown(f"no event {command.event_id!r}", event_id=command.event_id)
    _check_revision(unit, command.scope, command.manifests_at)
    event = unit.events.edit((command.scope, command.event_id))
    event.replays += bool(command.matches)
    run_ids = _start(unit, event, command.matches, event.replays, command.by, now)
    unit.event_runs.put(event.no, (*(unit.event_runs.get(event.no) or ()), *run_ids))
    return Accepted("accepted", event.id, run_ids, len(run_ids))


def _check_event(unit: Unit, command: AcceptEvent) -> None:
    new = command.event
    check.run_id(new.id)
    check.name("type", new.type)
    check.name("scope", command.scope)
    check.text("receivedAt", new.received_at, 128)
    for field, value in (("source", new.source), ("occurredAt", new.occurred_at)):
        if value is not None:
            check.text(field, value, 1_024, empty=True)
    for what, value in (("payload", new.payload), ("extra", new.extra), ("misses", command.misses)):
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
        run_id = flow_run_id(event.scope, event.id, match.flow, match.step, replay)
        if unit.run_by_id(event.scope, run_id) is not None:
            raise errors.Exists(f"run {run_id} of {match.flow}/{match.step} exists", run_id=run_id)
        first = flow_run_id(event.scope, event.id, match.flow, match.step, 0)
        body = RunCreated(
            run_kind="step",
            name=f"{match.flow}/{match.step}",
            version=match.version,
            pool=match.pool,
            pool_key=match.pool_key,
            priority=match.priority,
            by=by,
            event_no=event.no,
            event=event.id,
            replay=replay,
            replays=first if replay else None,
        )
        create(unit, event.scope, run_id, body, now, requires=match.requires, retry=match.retry)
        run_ids.append(run_id)
    return run_ids


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
        changed = True
        unit.manifests.drop(key)
    revision = (unit.revisions.get(command.scope) or 0) + changed
    if changed:
        unit.revisions.put(command.scope, revision)
    return Revision(revision, changed)

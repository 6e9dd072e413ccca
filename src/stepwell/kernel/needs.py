"""What a command wants loaded, told before anything is read. The load follows this; the rules see nothing else."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from msgspec import Struct, field

from stepwell.kernel import check
from stepwell.kernel.dedup import dedup_key
from stepwell.kernel.invoke import request_key
from stepwell.kernel.unit import PoolKey, TaskKey
from stepwell.model import commands as c
from stepwell.model.entries import ActionCanceled, Body, CancelSent, ChildStarted, EventSent, SignalSent
from stepwell.model.ids import flow_run_id

Names: TypeAlias = frozenset[int | tuple[str, str]]


class Need(Struct, gc=False):
    """The keys of a batch. `closing`: runs that may end, so all their open tasks and attached children come too.

    `peers`: run ids that a run names, in its own scope; `peer_signals`: those with the dedup key of a signal to them.
    `restarts`: runs by scope and id, with the part of their journal that is kept. `ending`: tasks whose end is the end
    of their run, if they are its turn. `slots`: where a start may be fused with its first lease. `limiting`: pools
    whose limits this batch sets. `dead`: workers, and how many leases of each are to end. `beats`: leases to extend,
    and by how many milliseconds; `telling`: those of them that bring details.
    """

    runs: set[int] = field(default_factory=set)
    ids: set[tuple[str, str]] = field(default_factory=set)
    closing: set[int] = field(default_factory=set)
    closing_ids: set[tuple[str, str]] = field(default_factory=set)
    tasks: set[TaskKey] = field(default_factory=set)
    beats: dict[TaskKey, int] = field(default_factory=dict)
    telling: set[TaskKey] = field(default_factory=set)
    turns: set[int] = field(default_factory=set)
    peers: set[tuple[int, str]] = field(default_factory=set)
    peer_signals: set[tuple[int, str, str]] = field(default_factory=set)
    restarts: set[tuple[str, str, int]] = field(default_factory=set)
    events: set[tuple[str, str]] = field(default_factory=set)
    manifests: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=set)
    pools: set[tuple[str, str]] = field(default_factory=set)
    limiting: set[tuple[str, str]] = field(default_factory=set)
    requests: set[tuple[str, str]] = field(default_factory=set)
    ending: set[TaskKey] = field(default_factory=set)
    slots: set[PoolKey] = field(default_factory=set)
    claims: list[c.Claim] = field(default_factory=list)
    promote: set[tuple[str, str, str]] = field(default_factory=set)
    promote_after: tuple[str, str, str] = ("", "", "")
    dead: dict[str, int] = field(default_factory=dict)
    internal: dict[type[c.Command], int] = field(default_factory=dict)
    new_runs: int = 0
    new_events: int = 0


def need_of(batch: Sequence[c.Command]) -> tuple[Need, dict[int, Exception]]:
    """What a batch needs, and by position what cannot even be asked for: a field of it has the wrong type or value."""
    need, refused = Need(), {}
    for position, command in enumerate(batch):
        try:
            _NEEDS[type(command)](need, command)
        except Exception as error:
            refused[position] = error
    return need, refused


def named(command: c.Command) -> Names:
    """The runs that a command names to write them, by number or by (scope, id)."""
    need = need_of([command])[0]
    return frozenset(need.runs | need.closing | need.ids | need.closing_ids)


def _accept(need: Need, command: c.AcceptEvent) -> None:
    need.revisions.add(command.scope)
    _event(need, command.scope, command.event, command.matches)


def _event(need: Need, scope: str, event: c.NewEvent, matches: Sequence[c.Match]) -> None:
    need.events.add((scope, event.id))
    need.ids.update((scope, flow_run_id(scope, event.id, match.flow, match.step, 0)) for match in matches)
    need.new_runs += len(matches)
    need.new_events += 1


def _adopt(need: Need, command: c.AdoptEvent) -> None:
    need.events.add((command.scope, command.event.id))
    need.ids.update((command.scope, run.id) for run in command.runs)
    need.new_runs += len(command.runs)
    need.new_events += 1


def _replay(need: Need, command: c.ReplayEvent) -> None:
    need.events.add((command.scope, command.event_id))
    need.revisions.add(command.scope)
    need.new_runs += len(command.matches)


def _sync_manifests(need: Need, command: c.SyncManifests) -> None:
    need.manifests.add(command.scope)
    need.revisions.add(command.scope)


def _start(need: Need, command: c.StartRun) -> None:
    key = (command.scope, command.id)
    (need.closing_ids if command.reuse == "replace" else need.ids).add(key)
    need.new_runs += 1
    if command.claim_for is not None:
        need.pools.add((command.scope, command.pool))
        need.slots.add((command.scope, command.pool, command.pool_key))


def _leased(need: Need, lease: c.Lease) -> None:
    need.runs.add(lease.run_no)
    need.tasks.add((lease.run_no, lease.k))


def _record(need: Need, command: c.Record) -> None:
    _leased(need, command.lease)
    for draft in command.entries:
        rule = _DRAFTS.get(type(draft.body))
        if rule is not None:
            rule(need, command.lease.run_no, draft, draft.body)


def _child(need: Need, run_no: int, draft: c.Draft, body: ChildStarted) -> None:
    check.run_id(body.child)
    need.peers.add((run_no, body.child))
    need.new_runs += 1


def _receiver(need: Need, run_no: int, draft: c.Draft, body: SignalSent | CancelSent) -> None:
    check.run_id(body.run)
    need.peers.add((run_no, body.run))
    if isinstance(body, SignalSent) and body.dedup is not None:
        check.run_id(body.dedup)
        need.peer_signals.add((run_no, body.run, body.dedup))


def _actions(need: Need, run_no: int, draft: c.Draft, body: ActionCanceled) -> None:
    need.closing.add(run_no)


def _sent_event(need: Need, run_no: int, draft: c.Draft, body: EventSent) -> None:
    if draft.sends is not None:
        _emission(need, draft.sends)


_DRAFTS: dict[type[Body], Callable[[Need, int, c.Draft, Any], None]] = {
    ChildStarted: _child,
    SignalSent: _receiver,
    CancelSent: _receiver,
    ActionCanceled: _actions,
    EventSent: _sent_event,
}


def _write(need: Need, command: Any) -> None:
    _leased(need, command.lease)


def _turn(need: Need, command: Any) -> None:
    _leased(need, command.lease)
    need.turns.add(command.lease.run_no)


def _ending(need: Need, command: c.Finish | c.Fail | c.Release) -> None:
    _turn(need, command)
    need.ending.add((command.lease.run_no, command.lease.k))
    if isinstance(command, c.Finish) and isinstance(command.outcome, c.Continued):
        need.peers.add((command.lease.run_no, command.outcome.id))
        need.new_runs += 1
    if not isinstance(command, c.Release) and command.sends is not None:
        _emission(need, command.sends)


def _emission(need: Need, sends: c.Emission) -> None:
    need.revisions.add(sends.scope)
    for one in sends.events:
        _event(need, sends.scope, one.event, one.matches)


def _sync(need: Need, command: c.Sync) -> None:
    for beat in command.beats:
        key = (beat.lease.run_no, beat.lease.k)
        need.beats[key] = command.lease_ms
        if beat.details is not None:
            need.telling.add(key)


def _claim(need: Need, command: c.Claim) -> None:
    need.claims.append(command)


def _signal(need: Need, command: c.Signal) -> None:
    check.run_id(command.run_id)
    need.ids.add((command.scope, command.run_id))
    if command.dedup is not None:
        need.requests.add(dedup_key(command.scope, command.run_id, command.dedup))


def _invoke(need: Need, command: c.Invoke) -> None:
    key = request_key(command)
    if key is not None:
        need.requests.add(key)


def _closing(need: Need, command: Any) -> None:
    check.run_id(command.run_id)
    need.closing_ids.add((command.scope, command.run_id))


def _restart(need: Need, command: c.Restart) -> None:
    _closing(need, command)
    if command.keep_seq:
        check.whole("keep_seq", command.keep_seq, 0, check.LAST_MS)
        need.restarts.add((command.scope, command.run_id, command.keep_seq))


def _pool(need: Need, command: c.SetPool) -> None:
    need.limiting.add((command.pool.scope, command.pool.name))


def _promote(need: Need, command: c.Promote) -> None:
    if command.keys:
        need.promote.update(command.keys)
    else:
        need.promote_after = command.after
        _internal(need, command)


def _bury(need: Need, command: c.Bury) -> None:
    check.name("worker", command.worker)
    check.whole("limit", command.limit, 1, 1_000)
    need.dead[command.worker] = max(command.limit, need.dead.get(command.worker, 0))


def _internal(need: Need, command: Any) -> None:
    need.internal[type(command)] = max(command.limit, need.internal.get(type(command), 0))


_NEEDS: dict[type[c.Command], Callable[[Need, Any], None]] = {
    c.AcceptEvent: _accept,
    c.AdoptEvent: _adopt,
    c.ReplayEvent: _replay,
    c.SyncManifests: _sync_manifests,
    c.StartRun: _start,
    c.Restart: _restart,
    c.Claim: _claim,
    c.Release: _ending,
    c.Sync: _sync,
    c.Record: _record,
    c.Mutate: _turn,
    c.Invoke: _invoke,
    c.Park: _write,
    c.Finish: _ending,
    c.Fail: _ending,
    c.Say: _turn,
    c.Signal: _signal,
    c.Cancel: _closing,
    c.Terminate: _closing,
    c.HoldRun: _closing,
    c.ReleaseRun: _closing,
    c.SetPool: _pool,
    c.Sweep: _internal,
    c.Bury: _bury,
    c.Fire: _internal,
    c.Deliver: _internal,
    c.Promote: _promote,
    c.Prune: _internal,
}

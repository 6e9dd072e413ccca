"""Events in, runs out: discovery, matching and dispatch, joined to the engine."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from stepwell.engine.engine import Engine
from stepwell.flows.differences import Differences
from stepwell.flows.discovery import Discovery, FlowCatalog, Problem
from stepwell.flows.events import FlowEvent, body_hash, flow_event, parse_event
from stepwell.flows.package import APP_PREFIX, DEFAULT_POOL, Flow, Step
from stepwell.flows.schemas import MAX_REASON_CHARS, Schemas
from stepwell.flows.trigger import Matching, Miss, StepMatch, match
from stepwell.flows.workflows import AppWorkflows, digest, needs_workflow, newest, restored, stored
from stepwell.model import commands as c
from stepwell.model.errors import Open, Outdated, Unknown
from stepwell.model.ids import MAX_NAME_BYTES
from stepwell.model.rows import Manifest, Pool, Run
from stepwell.store.port import Reader

T = TypeVar("T")
log = logging.getLogger("stepwell.flows")

#: How long a look at the folders is good for, in seconds: a save and the event after it are further apart.
FRESH_S = 0.05
TRIES = 5
#: Broken packages that an event names as possible listeners.
MAX_BROKEN = 10


def iso_ms(at_ms: int) -> str:
    """Milliseconds since the epoch as ISO-8601 in UTC."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_event(event: FlowEvent) -> c.NewEvent:
    """An event as the kernel takes it."""
    return c.NewEvent(
        id=event.id,
        type=event.type,
        received_at=event.received_at,
        body_hash=body_hash(event),
        payload=_json(event.payload),
        source=event.source,
        occurred_at=event.occurred_at,
        extra=_json(event.extra) if event.extra else None,
    )


def pool_of(flow: Flow, step: Step) -> str:
    """A step with a concurrency key has a pool of its own, since the limit is the step's."""
    if not step.concurrency:
        return step.pool
    name = f"flow:{flow.name}/{step.name}"
    return name if len(name.encode()) <= MAX_NAME_BYTES else f"flow:sha256:{sha256(name.encode()).hexdigest()}"


def needs_flow(name: str) -> str:
    """What a worker must have to be given a step of a flow."""
    return f"flow:{name}"


class FlowBackend:
    """The flows below a folder, as they are now, and the dispatch of events to them.

    `app`: the workflows that this process has. What others have is taken from the store: their apps and, by a process
    without any folder of flows (empty `roots`), also their packages.
    """

    def __init__(
        self,
        engine: Engine,
        cwd: Path,
        *,
        roots: Sequence[Path] | None = None,
        scope: str = "main",
        app: AppWorkflows | None = None,
    ) -> None:
        self.engine, self.cwd, self._roots, self._scope = engine, cwd, roots, scope
        if app is not None:
            app.check_size(engine.settings.payload_bytes)
        self._own: tuple[Flow, ...] = () if app is None else (app.flow,)
        self._keeps = "" if roots is not None and not roots else APP_PREFIX
        self._others: tuple[Flow, ...] = self._own
        self._catalog, self._schemas = FlowCatalog(), Schemas()
        self._on_disk = self._found = Discovery((), (), ())
        self._looked_at = float("-inf")
        self._synced: tuple[Flow, ...] | None = None
        self._differences = Differences(scope)
        self._revision = 0

    # ── flows ────────────────────────────────────────────────────────────────────────────────────────────────────

    def discover(self, *, fresh: bool = False) -> Discovery:
        """The packages on disk now; a look is good for `FRESH_S`, unless it has to be `fresh`.

        One that broke since the last look is logged.
        """
        if fresh or time.monotonic() - self._looked_at > FRESH_S:
            on_disk = self._catalog.discover(self.cwd, self._roots)
            if on_disk != self._on_disk:
                self._changed(on_disk)
            self._looked_at = time.monotonic()
        return self._found

    def _changed(self, on_disk: Discovery) -> None:
        found, before = _storable(on_disk, self.engine.settings.payload_bytes), self._found
        self._on_disk, self._found = on_disk, found
        if self._looked_at > 0:  # whoever starts tells of the first look
            for problem in found.problems:
                if problem not in before.problems:
                    log.warning("%s: %s", problem.path, problem.reason)

    def step(self, flow_name: str, step_name: str) -> tuple[Flow, Step]:
        """A step by name, of a package or an app. Raises `Unknown` with what there is."""
        flows = {flow.name: flow for flow in self._all()}
        flow = flows.get(flow_name)
        if flow is None:
            known = ", ".join(sorted(flows)) or "none"
            raise Unknown(f"no flow {flow_name!r}", hint=f"Flows here: {known}. See `stepwell flow list`.")
        step = flow.step(step_name)
        if step is None:
            known = ", ".join(one.name for one in flow.steps)
            raise Unknown(f"no step {step_name!r} in flow {flow_name!r}", hint=f"Its steps: {known}.")
        return flow, step

    def match(self, event: FlowEvent) -> Matching:
        """Which steps an event starts, and why others that listen to its type do not."""
        return match(self._all(), event, self._schemas)

    def _all(self) -> tuple[Flow, ...]:
        """The packages, and after them what the last sync found: the apps, this process's own among them."""
        return self.discover().flows + self._others

    async def sync(self, *, force: bool = False) -> int:
        """Tells the kernel of the manifests if they changed; answers the revision that a match is good for.

        `force`: somebody else changed them. Servers whose folders differ would take each other's back for ever, so
        each does that once for what it finds, and then leaves it: a match is on the folder of whoever makes it.
        """
        flows = self.discover(fresh=force).flows + self._own
        if flows != self._synced:
            await self._tell(flows)
        elif force:
            found = await self.engine.read(self._stored)
            own = {flow.name: digest(flow) for flow in flows}
            theirs = frozenset((row.name, row.hash) for row in found.manifests if self._is_ours(row.name, own))
            if theirs == own.items() or not self._differences.is_new(theirs):
                self._others, self._revision = self._restored(found.manifests), found.revision
            else:
                await self._tell(flows)
        return self._revision

    async def _tell(self, flows: tuple[Flow, ...]) -> None:
        manifests = tuple((flow.name, str(flow.version), digest(flow), stored(flow)) for flow in flows)
        revision = await self.engine.submit(c.SyncManifests(manifests, scope=self._scope, keeps=self._keeps))
        # read after the sync: what changes in between makes the revision, and so the match, outdated
        found = await self.engine.read(self._stored)
        for flow in flows:
            for step in flow.steps:
                await self._limit(flow, step)
        self._others, self._synced, self._revision = self._restored(found.manifests), flows, revision.revision

    def _stored(self, reader: Reader) -> "_Stored":
        return _Stored(reader.meta(f"revision:{self._scope}") or 0, reader.manifests(self._scope))

    def _restored(self, manifests: Sequence[Manifest]) -> tuple[Flow, ...]:
        """The apps, and what else only the store knows; of this process's own app, that which it has."""
        flows = {flow.name: flow for flow in (*restored(manifests, self._keeps), *self._own)}
        return tuple(sorted(flows.values(), key=lambda flow: (flow.name.startswith(APP_PREFIX), flow.name)))

    def _is_ours(self, name: str, own: Mapping[str, str]) -> bool:
        """Whether a stored manifest would be replaced, or taken away, by what this process tells."""
        return name in own or not name.startswith(self._keeps)

    async def _limit(self, flow: Flow, step: Step) -> None:
        """Sets the pool of a step; its other limits, and whether somebody paused it, stay as they are."""
        if step.concurrency is None:
            return
        name, limit = pool_of(flow, step), step.concurrency.limit
        pools = await self.engine.read(lambda reader: reader.pools(self._scope))
        pool = next((one for one in pools if one.name == name), None) or Pool(self._scope, name)
        if pool.key_limit != limit:
            await self.engine.submit(c.SetPool(msgspec.structs.replace(pool, key_limit=limit)))

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def dispatch(self, event: FlowEvent, *, by: str = "") -> c.Accepted:
        """Accepts an event: it, its matches and its runs are durable when this returns, or nothing is."""

        def command(revision: int) -> c.AcceptEvent:
            matching = self.match(event)
            matches = tuple(self._match(one) for one in matching.matches)
            misses = self._misses(matching)
            return c.AcceptEvent(new_event(event), matches, revision, misses=misses, scope=self._scope, by=by)

        return await self._matched(command)

    async def replay(self, event_id: str, *, steps: Sequence[str] = (), by: str = "") -> c.Accepted:
        """Runs a stored event again on the flows as they are now; `steps` (flow or flow/step) to choose some."""
        row = await self.engine.read(lambda reader: reader.event(self._scope, event_id))
        if row is None:
            raise Unknown(f"no event {event_id!r}", hint="See `stepwell events list`.", event_id=event_id)
        event = flow_event(row)

        def command(revision: int) -> c.ReplayEvent:
            chosen = _choose(event_id, self.match(event).matches, steps)
            matches = tuple(self._match(one) for one in chosen)
            return c.ReplayEvent(event_id, matches, revision, scope=self._scope, by=by)

        return await self._matched(command)

    async def run_one(self, flow_name: str, step_name: str, event: FlowEvent, *, by: str = "") -> c.Accepted:
        """Runs one step for an event, whatever its trigger says; an event that is there already is replayed."""
        await self.sync()  # a step may be one of an app that only the store knows
        flow, step = self.step(flow_name, step_name)
        row = await self.engine.read(lambda reader: reader.event(self._scope, event.id))

        def command(revision: int) -> c.AcceptEvent | c.ReplayEvent:
            matches = (self._match(StepMatch(flow, step, None)),)
            if row is not None and row.body_hash == body_hash(event):
                return c.ReplayEvent(event.id, matches, revision, scope=self._scope, by=by)
            return c.AcceptEvent(new_event(event), matches, revision, scope=self._scope, by=by)

        return await self._matched(command)

    def emission(self, run: Run, wanted: Sequence[dict[str, Any]], revision: int) -> c.Emission | None:
        """The events that a run's result sends, matched; one without an id gets one that a repeat gives it again."""
        events = tuple(self._emitted(run, str(index), one) for index, one in enumerate(wanted))
        return c.Emission(events, revision, self._scope) if events else None

    def emission_of(self, run: Run, key: str, wanted: dict[str, Any], revision: int) -> c.Emission:
        """The one event that the step `key` of a workflow sends, in its wire form; its id as in `emission`.

        Raises `Invalid` or `TooLarge` for what is no event.
        """
        return c.Emission((self._emitted(run, key, wanted),), revision, self._scope)

    def _emitted(self, run: Run, key: str, wanted: dict[str, Any]) -> c.Emitted:
        def new_id() -> str:
            return "evt_" + sha256(f"{run.id}\0{run.generation}\0{key}".encode()).hexdigest()[:26]

        event = parse_event(wanted, now_iso=iso_ms(self.engine.clock_ms()), new_id=new_id)
        matching = self.match(event)
        return c.Emitted(new_event(event), tuple(map(self._match, matching.matches)), self._misses(matching))

    async def matched(self, send: Callable[[int], Awaitable[T]]) -> T:
        """Sends what depends on a revision of the manifests; once more when they changed meanwhile."""
        for attempt in range(TRIES):
            try:
                return await send(await self.sync(force=attempt > 0))
            except Outdated:
                continue
        raise Outdated("the flows change faster than the event can be matched")

    async def retry(self, run_id: str, *, by: str = "") -> c.RunState:
        """Runs an ended run again, as its next generation; a held one goes on. Any other is `Open`."""
        run = await self.engine.read(lambda reader: reader.run(self._scope, run_id))
        if run is None:
            raise Unknown(f"run not found: {run_id}", hint="See `stepwell runs list`.", run_id=run_id)
        if run.hold is not None:
            return await self.engine.submit(c.ReleaseRun(run_id, by=by, scope=self._scope))
        if not run.terminal:
            raise Open(f"run {run_id} is {run.status}: there is nothing to retry", run_id=run_id, status=run.status)
        return await self.engine.submit(c.Restart(run_id, by=by, scope=self._scope))

    async def _matched(self, command: Callable[[int], c.AcceptEvent | c.ReplayEvent]) -> c.Accepted:
        return await self.matched(lambda revision: self.engine.submit(command(revision)))

    def _misses(self, matching: Matching) -> str | None:
        """Why steps do not run, as JSON that can be stored: what is too long for that is said shortly, or left out.

        Packages that are broken now are named too: they may have listened.
        """
        if not matching.misses and not self._found.problems:
            return None
        limit, told = self.engine.settings.payload_bytes, list[str]()
        for one in (*map(_miss, matching.misses), *map(_broken, self._found.problems[:MAX_BROKEN])):
            for text in (_json(one), _json(one | {"reason": "the reason is too long to be kept"})):
                size = len(text.encode()) + 2
                if size <= limit:
                    told.append(text)
                    limit -= size
                    break
        return f"[{','.join(told)}]" if told else None

    def _match(self, found: StepMatch) -> c.Match:
        flow, step = found.flow, found.step
        if step.workflow is not None:
            return self._workflow_match(found, step.workflow)
        return c.Match(
            flow=flow.name,
            step=step.name,
            version=str(flow.version),
            pool=pool_of(flow, step),
            pool_key=found.key,
            priority=step.priority,
            requires=needs_flow(flow.name),
            retry=_json(step.retry) if step.retry else None,
            tags=_json({"appServer": _plain_url(step.app_server)}) if step.app_server else None,
        )

    def _workflow_match(self, found: StepMatch, workflow: str) -> c.Match:
        """The run is the workflow's, as its app has it; which step it is of stands in its tags."""
        flow, step, known = found.flow, found.step, newest(self._others, workflow)
        pool = pool_of(flow, step)
        tags = {"flow": f"{flow.name}/{step.name}", "flowVersion": str(flow.version)}
        return c.Match(
            flow=flow.name,
            step=step.name,
            version=step.workflow_version or (known and known.workflow_version) or "",
            pool=known.pool if known is not None and pool == DEFAULT_POOL else pool,
            pool_key=found.key,
            priority=step.priority,
            requires=needs_workflow(workflow),
            tags=_json(tags),
            workflow=workflow,
            deadline_ms=None if known is None else known.deadline_ms,
        )


class _Stored(Struct, frozen=True):
    """The manifests of a scope at one moment."""

    revision: int
    manifests: list[Manifest]


def _plain_url(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _choose(event_id: str, found: Sequence[StepMatch], steps: Sequence[str]) -> Sequence[StepMatch]:
    """The matches that `steps` name, or all; a name that is none of them is `Unknown`."""
    if not steps:
        return found
    names = [{one.flow.name, f"{one.flow.name}/{one.step.name}"} for one in found]
    for name in steps:
        if not any(name in each for each in names):
            known = ", ".join(f"{one.flow.name}/{one.step.name}" for one in found) or "none"
            raise Unknown(f"event {event_id!r} does not match {name!r}", hint=f"The steps that it matches: {known}.")
    return [one for one, each in zip(found, names, strict=True) if not each.isdisjoint(steps)]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _miss(miss: Miss) -> dict[str, Any]:
    """{flow, step, reason, fault?}; a fault is made up for when the event comes again."""
    view = {"flow": miss.flow.name, "step": miss.step.name, "reason": miss.reason}
    return view | ({"fault": True} if miss.fault else {})


def _broken(problem: Problem) -> dict[str, Any]:
    """The same for a package: its folder stands for its name."""
    reason = f"broken package: {problem.reason}"[:MAX_REASON_CHARS]
    return {"flow": problem.path.parent.name, "step": "*", "reason": reason, "fault": True}


def _storable(found: Discovery, limit: int) -> Discovery:
    """Without the flows whose manifest the store does not take: they are a problem of theirs, not of every event."""
    sizes = {flow.name: len(stored(flow).encode()) for flow in found.flows}
    large = tuple(_too_large(flow, sizes[flow.name], limit) for flow in found.flows if sizes[flow.name] > limit)
    good = tuple(flow for flow in found.flows if sizes[flow.name] <= limit)
    return Discovery(good, found.problems + large, found.shadowed)


def _too_large(flow: Flow, size: int, limit: int) -> Problem:
    hint = "Move large values of its config into a file, or raise STEPWELL_PAYLOAD_BYTES."
    return Problem(flow.manifest_path, f"the manifest takes {size:,} bytes as JSON, the limit is {limit:,}", hint)

"""`Stepwell`: workflows in any asyncio program, on a database that this process opens (source: API, clients)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast, overload

from stepwell.client.calling import call
from stepwell.client.connection import BY, Connection
from stepwell.client.handle import Handle
from stepwell.client.listing import Wanted, list_runs
from stepwell.client.paged import Paged
from stepwell.client.run import Run
from stepwell.engine.clock import steady_s
from stepwell.flows.backend import iso_ms
from stepwell.flows.events import parse_event
from stepwell.functions.define import (
    Action,
    Dispatched,
    Duration,
    Event,
    Mutation,
    Query,
    StartOptions,
    Workflow,
    duration_ms,
)
from stepwell.functions.messages import need_text
from stepwell.functions.start_options import SCOPE, check_options, checked_tags, merged, scope_of
from stepwell.functions.starts import need_workflow, start_command
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.model.words import Status
from stepwell.worker.host import event_wire
from stepwell.workflow.app import App

P = ParamSpec("P")
R = TypeVar("R")
#: How many steps and actions run at once in a program that does not say.
SLOTS = 16
DRAIN_S = 30.0


class Stepwell:
    """A database with the engine in this process, and a worker for the app's workflows and actions.

    Use it as `async with Stepwell("sqlite:///app.db", app) as sw:`, or as the `lifespan` of a web app. Several
    processes may open one file; `memory:` is gone at the end. `worker=False`: others run what is started here.
    `slots`: actions and flow steps at once. `flows`: a folder whose flow packages run here, too. `settings`: the
    `STEPWELL_` variables unless they are given. `drain`: what runs has so long to end at the close. `clock_ms`: the
    time, in milliseconds since 1970, which a test may put forward; without it, that of the database's server, or of
    this machine where there is none.
    """

    def __init__(
        self,
        url: str,
        app: App | None = None,
        *,
        worker: bool = True,
        slots: int = SLOTS,
        flows: Path | str | None = None,
        settings: Settings | None = None,
        drain: Duration = DRAIN_S,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        self._options: Mapping[str, Any] = {}
        self._connection = Connection(
            url,
            app,
            worker=worker,
            slots=slots,
            flows=flows,
            settings=settings,
            drain_s=duration_ms(drain, "drain") / 1_000,
            clock_ms=clock_ms,
        )

    async def __aenter__(self) -> Self:
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open while a web app runs: `FastAPI(lifespan=sw.lifespan)`."""
        async with self:
            yield

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def options(self, **options: Unpack[StartOptions]) -> Self:
        """A view: starts through it use these options. Raises Invalid for what there is not."""
        check_options(options)
        view = object.__new__(type(self))
        view._connection = self._connection
        view._options = merged(self._options, options)
        return view

    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Starts a run; it is durable when this returns.

        With `options(id=)`, `if_exists` says what happens if there is one: `return` it (the default; another input is
        Conflict), `raise`, or `replace` it. Raises ArgumentError for arguments that do not fit.
        """
        need_workflow(workflow)
        local = self._connection.local
        engine, worker = local.engine, local.worker
        command = start_command(
            workflow,
            workflow.signature.bind(args, kwargs),
            self._options,
            run_id=engine.new_id(),
            scope=scope_of(self._options),
            now=engine.clock_ms(),
            by=BY,
        )
        self._connection.use_pool(workflow, self._options)
        since = steady_s()
        started = await (engine.submit(command) if worker is None else worker.start_run(command))
        new = (started.run_no, since) if started.created else None
        return Handle(self._connection, started.run_id, workflow, scope=command.scope, new=new)

    @overload
    def handle(self, run_id: str) -> Handle[Any]: ...
    @overload
    def handle(self, run_id: str, workflow: Workflow[..., R]) -> Handle[R]: ...
    def handle(self, run_id: str, workflow: Workflow[..., Any] | None = None) -> Handle[Any]:
        """A run by its id; with its workflow, its result is typed. Whether there is one shows with the first call."""
        if workflow is not None:
            need_workflow(workflow)
        return Handle(self._connection, run_id, workflow, scope=scope_of(self._options))

    def runs(
        self,
        *,
        status: Status | None = None,
        result_status: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        scope: str | None = None,
        event_id: str | None = None,
    ) -> Paged[Run]:
        """Runs, newest first, that have all of this. With `tags` a page may be short, or empty, and go on."""
        wanted = Wanted(
            status=status,
            result_status=result_status,
            name=name,
            event_id=event_id,
            tags=checked_tags(tags),
            scope=scope_of(self._options) if scope is None else scope,
        )
        return list_runs(self._connection, wanted)

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(self, fn: Query[P, R] | Mutation[P, R] | Action[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a function of the app: a mutation in one transaction, a query on one snapshot, both in this process; an
        action on any worker that has it, as a run of its own with this view's options, until it has ended.

        Raises StepError with what the function raised, ArgumentError for arguments that do not fit, UnknownFunction for
        a mutation or query that the app of this process does not have.
        """
        result: R = await call(self._connection, fn, args, kwargs, self._options)
        return result

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def dispatch(self, event: Event[Any], *, wait: Duration | None = None) -> Dispatched:
        """Sends an event: it and the runs that it starts are durable when this returns, or nothing is.

        Without an id it gets a new one. The same id and body again is a duplicate, with the same runs; another body is
        Conflict. `wait`: so long at most for the runs to end.
        """
        local, wait_s = self._connection.local, _wait_s(wait)
        engine = local.engine
        body = parse_event(
            event_wire(event),
            now_iso=iso_ms(engine.clock_ms()),
            new_id=lambda: engine.new_id("evt_"),
            max_bytes=engine.settings.payload_bytes,
        )
        accepted = await local.flows.dispatch(body, by=BY)
        return await self._told(Dispatched(accepted.event_id, accepted.status == "duplicate", accepted.run_ids), wait_s)

    async def replay(self, event_id: str, *, flows: Sequence[str] = (), wait: Duration | None = None) -> Dispatched:
        """Runs a stored event again, on the flows and workflows as they are now: new runs. `flows` chooses some.

        Raises NotFound.
        """
        wait_s, given = _wait_s(wait), cast("object", flows)
        need_text("event_id", event_id, "the id of an event")
        if isinstance(given, str) or not isinstance(given, Sequence):
            hint = "Give a list of names, as ['packing'], or leave it out for all."
            raise Invalid(f"flows are a list of names, not {given!r:.80}", hint=hint, field="flows")
        accepted = await self._connection.local.flows.replay(event_id, steps=tuple(flows), by=BY)
        return await self._told(Dispatched(accepted.event_id, False, accepted.run_ids), wait_s)

    async def _told(self, dispatched: Dispatched, wait_s: float | None) -> Dispatched:
        if wait_s is not None:
            handles: list[Handle[Any]] = [
                Handle(self._connection, one, None, scope=SCOPE) for one in dispatched.run_ids
            ]
            try:
                async with asyncio.timeout(wait_s):
                    await asyncio.gather(*(handle.ended() for handle in handles))
            except TimeoutError:
                pass  # they go on
        return dispatched


def _wait_s(wait: Duration | None) -> float | None:
    """So long in seconds. Refused before anything is sent, if it cannot be."""
    return None if wait is None else duration_ms(wait, "wait") / 1_000

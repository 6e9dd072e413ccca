"""An app in a process: its mutations in the engine, its workflows and actions in the worker (source: API, clients)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.workflows import AppWorkflows
from stepwell.functions import values
from stepwell.functions.define import Event, Function, Pool, Workflow
from stepwell.functions.failures import step_error
from stepwell.functions.messages import need_event
from stepwell.functions.mutations import AppMutations
from stepwell.functions.pools import NamedPools
from stepwell.functions.queries import AppQueries
from stepwell.kernel.calls import Call, Called
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model import rows
from stepwell.model.errors import Invalid, MutationFailed, Outdated, StepwellError, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Store
from stepwell.worker.actions import ActionHandler
from stepwell.worker.claims import Handler, Requires
from stepwell.worker.held import Held
from stepwell.worker.inline import Inline
from stepwell.worker.limits import Limits
from stepwell.worker.mended import release_mended
from stepwell.worker.steps import StepHandler
from stepwell.worker.threads import Threads
from stepwell.worker.turns import TurnHandler
from stepwell.workflow.app import App
from stepwell.workflow.said import workflow_logger

log = logging.getLogger("stepwell.worker")
#: `def` steps and actions that run at once.
THREADS = 64


class AppHost:
    """One app beside one engine. Raises `Invalid` for an app with annotations that name nothing."""

    def __init__(self, app: App) -> None:
        app.registry.check()
        self.app, self.registry = app, app.registry
        workflows = [function for function in app.registry if isinstance(function, Workflow)]
        self.triggers = AppWorkflows(app.name, workflows)
        self._pools = NamedPools(
            pool for function in app.registry if isinstance(pool := function.options.get("pool"), Pool)
        )
        self._mutations: _Mutations | None = None
        self._queries: AppQueries | None = None
        self._flows: FlowBackend | None = None
        self._revision = 0
        self._catching_up: asyncio.Task[None] | None = None
        self._calling: Calls | None = None
        self._turns: TurnHandler | None = None
        self._actions: ActionHandler | None = None

    def engine(
        self, store: Store, *, settings: Settings, roles: bool, clock_ms: Callable[[], int] | None = None
    ) -> Engine:
        """An engine that has the app's mutations, and brings its tables up to date when it opens."""
        self._queries = AppQueries(self.registry, settings=settings)
        self._mutations = _Mutations(
            self.registry,
            app=self.app.name,
            migrations=self.app.migrations,
            settings=settings,
            match=self._match,
            retry=self.app.retry,
            pools=self._pools,
        )
        return Engine(
            store,
            settings=settings,
            clock_ms=clock_ms,
            roles=roles,
            mutations=self._mutations,
            prepare=self._mutations.migrate,
        )

    def close(self) -> None:
        """After the engine has closed."""
        for one in (self._mutations, self._queries):
            if one is not None:
                one.close()

    def _match(self, scope: str, event: Event[Any], event_id: str) -> c.Emission:
        """What an event of a mutation starts, on the revision of the last sync; called on the lane's thread."""
        assert self._flows is not None, "mutations run while the app is open"
        sender = rows.Run(no=0, scope=scope, id=event_id)
        return self._flows.emission_of(sender, "", event_wire(event) | {"id": event_id}, self._revision)

    @asynccontextmanager
    async def opened(self, engine: Engine, flows: FlowBackend) -> AsyncIterator[None]:
        """While the engine is open: the app's tables and pools are as its code says, and its triggers are known."""
        assert self._queries is not None, "the engine is made by this host"
        self._flows = flows
        if self._mutations is not None:
            loop = asyncio.get_running_loop()
            self._mutations.outdated = lambda: loop.call_soon_threadsafe(self._catch_up)
        self.limits = Limits(engine, self._pools)
        threads, calling = Threads(THREADS), Calls(engine, self._queries, self._sent)
        inline = Inline(threads, calling, _matching(flows), grace_s=engine.settings.kill_grace_ms / 1_000)
        self._calling = calling
        self._turns = TurnHandler(engine, self.registry, inline, logger=workflow_logger, retry=self.app.retry)
        self._turns.use_pool = self.limits.use
        self._actions = ActionHandler(engine, self.registry, threads, calling)
        try:
            await self.limits.open()
            self._revision = await flows.sync()
            await release_mended(engine, self.registry, self._turns.code)
            yield
        finally:
            if self._catching_up is not None:
                self._catching_up.cancel()
                await asyncio.gather(self._catching_up, return_exceptions=True)
            threads.close()

    def _catch_up(self) -> None:
        """The flows have changed: a workflow's mutation that sends an event is called again, and matched on the new."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._sync(), name="stepwell-catch-up")

    async def _sync(self) -> None:
        assert self._flows is not None, "mutations run while the app is open"
        try:
            self._revision = await self._flows.sync(force=True)
        except StepwellError as error:
            log.warning("the flows cannot be looked at: %s", error)

    async def _sent(self, command: c.Invoke) -> c.Invoked:
        """Sends a call of a mutation; again, on the present flows, if it sends an event and they have changed."""
        assert self._flows is not None, "mutations run while the app is open"
        engine = self._flows.engine

        async def send(revision: int) -> c.Invoked:
            self._revision = revision
            invoked: c.Invoked = await engine.submit(command)
            return invoked

        return await self._flows.matched(send)

    @property
    def calling(self) -> "Calls":
        """Calls of the app's queries and mutations."""
        if self._calling is None:
            raise Unavailable("the app is not open", hint="Open it with `open_local`.")
        return self._calling

    def handlers(self, steps: StepHandler | None) -> tuple[dict[str, Handler], Requires]:
        """What takes a slot: steps of flows, if there are any here, and the app's actions; and what that asks for."""
        actions = self._actions
        assert actions is not None, "the app is opened before its worker"

        async def step(held: Held) -> None:
            leased = held.leased
            if steps is not None and leased.event is not None:
                await steps(held)
            else:  # a function that was enqueued has no event
                leased.name, leased.args = leased.run.name, leased.input
                await actions(held)

        def requires() -> tuple[str, ...]:
            return (*(() if steps is None else steps.requires()), *actions.requires())

        return {"step": step, "action": actions}, requires

    @property
    def turns(self) -> TurnHandler | None:
        """What runs its workflows."""
        return self._turns


class _Mutations(AppMutations):
    """Tells when the flows that an event was matched on have changed. Who called is refused, and calls again."""

    outdated: Callable[[], object] = staticmethod(lambda: None)

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        try:
            return super().call(unit, call, now)
        except Outdated:
            self.outdated()
            raise


class Calls:
    """Queries in one snapshot, mutations as commits of their own, in this process (source: API, rule 4)."""

    def __init__(self, engine: Engine, queries: AppQueries, send: Callable[[c.Invoke], Awaitable[c.Invoked]]) -> None:
        self._engine, self._queries, self._send = engine, queries, send

    async def call(
        self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, scope: str = "main", by: str = ""
    ) -> Any:
        """The result by its annotation. Raises `StepError` with what the function raised, `ArgumentError`,
        `UnknownFunction`, and `Unavailable` where the store is away."""
        if not isinstance(fn, Function) or fn.kind not in ("mutation", "query"):
            raise Invalid(f"{fn!r:.80} is no mutation or query", hint="Those of the app are objects of its decorators.")
        text = fn.signature.bind(args, kwargs)
        result = await (self._mutate if fn.kind == "mutation" else self._query)(fn, text, scope, by)
        return fn.signature.decode_result(result)

    async def _mutate(self, fn: Function[Any, Any], args: str, scope: str, by: str) -> str:
        try:
            invoked = await self._send(c.Invoke(fn.path, args, scope=scope, by=by))
        except MutationFailed as failed:
            raise step_error(failed.fields["failure"]) from None
        return invoked.result

    async def _query(self, fn: Function[Any, Any], args: str, scope: str, by: str) -> str:
        return await self._engine.read(lambda reader: self._queries.call(reader, fn.path, args))


def _matching(flows: FlowBackend) -> Callable[[rows.Run, str, Any, bool], Any]:
    async def match(run: rows.Run, key: str, event: Any, changed: bool) -> c.Emission:
        return flows.emission_of(run, key, event_wire(event), await flows.sync(force=changed))

    return match


def event_wire(event: Event[Any]) -> dict[str, Any]:
    """An event as it is sent. Raises `NotJson` for a payload that cannot be, `Invalid` for what is no event."""
    need_event(event)
    wire = {"type": event.type, "payload": msgspec.json.decode(values.encode(event.payload))}
    more = {
        "id": event.id or None,
        "source": event.source,
        "occurredAt": None if event.occurred_at is None else event.occurred_at.isoformat(),
    }
    return wire | {key: value for key, value in more.items() if value is not None}

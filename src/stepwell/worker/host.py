"""An app in a process: its mutations in the engine, its workflows and actions in the worker (source: API, clients)."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.workflows import AppWorkflows
from stepwell.functions import values
from stepwell.functions.define import Event, Function, Pool, Workflow
from stepwell.functions.failures import step_error
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model import rows
from stepwell.model.errors import Invalid, MutationFailed, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Store
from stepwell.worker.actions import ActionHandler
from stepwell.worker.claims import Handler, Requires
from stepwell.worker.held import Held
from stepwell.worker.inline import Inline
from stepwell.worker.steps import StepHandler
from stepwell.worker.threads import Threads
from stepwell.worker.turns import TurnHandler
from stepwell.workflow.app import App
from stepwell.workflow.said import workflow_logger

#: `def` steps and actions that run at once.
THREADS = 64


class AppHost:
    """One app beside one engine. Raises `Invalid` for an app with annotations that name nothing."""

    def __init__(self, app: App) -> None:
        app.registry.check()
        self.app, self.registry = app, app.registry
        workflows = [function for function in app.registry if isinstance(function, Workflow)]
        self.triggers = AppWorkflows(app.name, workflows)
        self._calling: Calls | None = None
        self._turns: TurnHandler | None = None
        self._actions: ActionHandler | None = None

    def engine(self, store: Store, *, settings: Settings, roles: bool) -> Engine:
        """An engine that has the app's mutations."""
        return Engine(store, settings=settings, roles=roles)

    @asynccontextmanager
    async def opened(self, engine: Engine, flows: FlowBackend) -> AsyncIterator[None]:
        """While the engine is open: the app's tables and pools are as its code says, and its triggers are known."""
        threads, calling = Threads(THREADS), Calls(engine, self.registry)
        inline = Inline(threads, calling, _matching(flows), grace_s=engine.settings.kill_grace_ms / 1_000)
        self._calling = calling
        self._turns = TurnHandler(engine, self.registry, inline, logger=workflow_logger, retry=self.app.retry)
        self._actions = ActionHandler(engine, self.registry, threads, calling, retry=self.app.retry)
        try:
            await limit_pools(engine, self.registry)
            await flows.sync()
            yield
        finally:
            threads.close()

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


class Calls:
    """Queries in one snapshot, mutations as commits of their own, in this process (source: API, rule 4)."""

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine, self._registry = engine, registry

    async def call(
        self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, scope: str = "main", by: str = ""
    ) -> Any:
        """The result by its annotation. Raises `StepError` with what the function raised, `ArgumentError`,
        `UnknownFunction`."""
        if not isinstance(fn, Function) or fn.kind not in ("mutation", "query"):
            raise Invalid(f"{fn!r:.80} is no mutation or query", hint="Those of the app are objects of its decorators.")
        text = fn.signature.bind(args, kwargs)
        result = await (self._mutate if fn.kind == "mutation" else self._query)(fn, text, scope, by)
        return fn.signature.decode_result(result)

    async def _mutate(self, fn: Function[Any, Any], args: str, scope: str, by: str) -> str:
        try:
            invoked: c.Invoked = await self._engine.submit(c.Invoke(fn.path, args, scope=scope, by=by))
        except MutationFailed as failed:
            raise step_error(failed.fields["failure"]) from None
        return invoked.result

    async def _query(self, fn: Function[Any, Any], args: str, scope: str, by: str) -> str:
        raise NotImplementedError


def _matching(flows: FlowBackend) -> Callable[[rows.Run, str, Any, bool], Any]:
    async def match(run: rows.Run, key: str, event: Any, changed: bool) -> c.Emission:
        return flows.emission_of(run, key, event_wire(event), await flows.sync(force=changed))

    return match


def event_wire(event: Event[Any]) -> dict[str, Any]:
    """An event as it is sent. Raises `NotJson` for a payload that cannot be, `Invalid` for what is no event."""
    given: object = event
    if not isinstance(given, Event):
        hint = "Give Event('order.paid', {'order': 7})."
        raise Invalid(f"dispatch takes an Event, not {type(given).__name__}", hint=hint)
    wire = {"type": event.type, "payload": msgspec.json.decode(values.encode(event.payload))}
    more = {
        "id": event.id or None,
        "source": event.source,
        "occurredAt": None if event.occurred_at is None else event.occurred_at.isoformat(),
    }
    return wire | {key: value for key, value in more.items() if value is not None}


async def limit_pools(engine: Engine, registry: Registry) -> None:
    """Sets the limits of the pools that functions name. What an operator paused stays paused."""
    wanted = {pool.name: pool for pool in _pools(registry) if (pool.limit, pool.per_key, pool.rate) != (None,) * 3}
    if not wanted:
        return
    there = {pool.name: pool for pool in await engine.read(lambda reader: reader.pools("main"))}
    for name, pool in wanted.items():
        old = there.get(name) or rows.Pool("main", name)
        new = msgspec.structs.replace(
            old, limit=pool.limit, key_limit=pool.per_key, rate=pool.rate_count, rate_ms=pool.rate_ms
        )
        if new != old:
            await engine.submit(c.SetPool(new))


def _pools(registry: Registry) -> list[Pool]:
    given = (function.options.get("pool") for function in registry)
    return [pool for pool in given if isinstance(pool, Pool)]

"""Everything in one process: a store, its engine, the flows of a folder, an app, and a worker for them."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.export import EventFiles
from stepwell.flows.options import FlowOptions
from stepwell.flows.runners.base import Tools
from stepwell.model.errors import Invalid, StepwellError
from stepwell.model.settings import Settings
from stepwell.store.address import public_address
from stepwell.store.memory import MemoryStore
from stepwell.store.port import Store
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.alive import Presence
from stepwell.worker.limits import Limits
from stepwell.worker.steps import StepHandler
from stepwell.worker.undertaker import Undertaker
from stepwell.worker.worker import Worker

if TYPE_CHECKING:  # loaded only by whoever has an app: command lines without one are to be quick
    from stepwell.worker.host import AppHost
    from stepwell.workflow.app import App


class Local(Struct):
    """What `open_local` gives; `worker` only if it was asked for slots, `app` only if it was given one."""

    engine: Engine
    flows: FlowBackend
    worker: Worker | None
    limits: Limits
    app: "AppHost | None" = None


def open_store(url: str, settings: Settings) -> Store:
    """A store by its URL: sqlite:///FILE, postgresql://…, or memory:."""
    if url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteStore(path, sync=settings.sync)
    if url.startswith(("postgresql://", "postgres://")):
        return _postgres(url, settings)
    hint = "Use sqlite:///FILE, for example sqlite:///app.sqlite, or postgresql://USER@HOST/DATABASE."
    raise Invalid(f"no store for {public_address(url)!r}", hint=hint)


def _postgres(url: str, settings: Settings) -> Store:
    """`?pooled=true` is ours, for a pooler in transaction mode; the rest of the address is for libpq."""
    try:
        from stepwell.store.postgres.store import IDLE_MS, PostgresStore
    except ImportError as error:
        hint = "Install it: pip install 'stepwell[postgres]'."
        raise Invalid(f"the driver for PostgreSQL is not here: {error}", hint=hint) from error
    address, _, query = url.partition("?")
    rest = [part for part in query.split("&") if part and part not in ("pooled=true", "pooled=false")]
    return PostgresStore(
        "?".join([address, *(["&".join(rest)] if rest else [])]),
        pooled="pooled=true" in query.split("&"),
        idle_ms=max(IDLE_MS, 2 * settings.mutation_limit_ms),
    )


@asynccontextmanager
async def open_local(
    url: str,
    cwd: Path | None,
    *,
    settings: Settings,
    options: FlowOptions | None = None,
    slots: int = 0,
    roots: Sequence[Path] | None = None,
    roles: bool = True,
    drain_s: float = 30.0,
    worker_name: str | None = None,
    pools: Sequence[str] = (),
    events_dir: Path | None = None,
    app: "App | None" = None,
    clock_ms: Callable[[], int] | None = None,
) -> AsyncIterator[Local]:
    """Opens it, and closes it in the right order: the worker hands back before the engine ends.

    `cwd`: the folder with the flows; None: no flows. `events_dir`: a folder that gets a JSON file for each event.
    """
    store = open_store(url, settings)
    async with AsyncExitStack() as stack:
        host = None if app is None else _host(app)
        if host is None:
            engine = await stack.enter_async_context(Engine(store, settings=settings, roles=roles, clock_ms=clock_ms))
        else:
            stack.callback(host.close)
            opened = host.engine(store, settings=settings, roles=roles, clock_ms=clock_ms)
            engine = await stack.enter_async_context(opened)
        flows = FlowBackend(
            engine,
            cwd or Path.cwd(),
            roots=() if cwd is None else roots,
            app=None if host is None else host.triggers,
        )
        if host is not None:
            await stack.enter_async_context(host.opened(engine, flows))
        if events_dir is not None:
            files = EventFiles(engine, events_dir)
            files.start()
            stack.push_async_callback(files.stop)
        worker = None
        if slots:
            options = options or FlowOptions()
            steps = None if cwd is None else _steps(flows, cwd, options)
            worker = _worker(engine, steps, host, slots=slots, pools=pools, name=worker_name, via=options.executor)
            path = store.path if isinstance(store, SqliteStore) else None
            if path is not None and roles:
                await _bury(stack, engine, path)
            stack.enter_context(Presence(path, worker.name))
            worker.start()
            stack.push_async_callback(worker.stop, drain_s=drain_s)
        yield Local(engine, flows, worker, Limits(engine) if host is None else host.limits, host)


async def _bury(stack: AsyncExitStack, engine: Engine, path: Path) -> None:
    """Frees what dead workers held, before the first claim and from then on."""
    undertaker = Undertaker(engine.submit, path)
    with contextlib.suppress(StepwellError):  # it tries again, and says what is wrong
        await undertaker.work()
    undertaker.start()
    stack.push_async_callback(undertaker.stop)


def _host(app: "App") -> "AppHost":
    from stepwell.worker.host import AppHost

    return AppHost(app)


def _steps(flows: FlowBackend, cwd: Path, options: FlowOptions) -> StepHandler:
    tools = Tools(options.tools, dirs=(cwd,), search_path=os.environ.get("PATH", os.defpath))
    return StepHandler(flows, tools=tools, options=options)


def _worker(
    engine: Engine,
    steps: StepHandler | None,
    host: "AppHost | None",
    *,
    slots: int,
    pools: Sequence[str],
    name: str | None,
    via: str,
) -> Worker:
    if host is None:
        if steps is None:
            raise Invalid("there is nothing to run", hint="Give a folder of flows, or an app.")
        return Worker(engine, {"step": steps}, slots=slots, requires=steps.requires, pools=pools, name=name, via=via)
    handlers, requires = host.handlers(steps)
    return Worker(engine, handlers, slots=slots, requires=requires, turns=host.turns, pools=pools, name=name, via=via)

"""Everything in one process: a store, its engine, the flows of a folder, and a worker for them."""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.export import EventFiles
from stepwell.flows.options import FlowOptions
from stepwell.flows.runners.base import Tools
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import Store
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.alive import present
from stepwell.worker.steps import StepHandler
from stepwell.worker.worker import Worker


class Local(Struct):
    """What `open_local` gives; `worker` only if it was asked for slots."""

    engine: Engine
    flows: FlowBackend
    worker: Worker | None


def open_store(url: str, settings: Settings) -> Store:
    """A store by its URL: sqlite:///FILE, or memory:."""
    if url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteStore(path, sync=settings.sync)
    raise Invalid(f"no store for {url!r}", hint="Use sqlite:///FILE, for example sqlite:///app.sqlite.")


@asynccontextmanager
async def open_local(
    url: str,
    cwd: Path,
    *,
    settings: Settings,
    options: FlowOptions | None = None,
    slots: int = 0,
    roots: Sequence[Path] | None = None,
    roles: bool = True,
    drain_s: float = 30.0,
    worker_name: str | None = None,
    events_dir: Path | None = None,
) -> AsyncIterator[Local]:
    """Opens it, and closes it in the right order: the worker hands back before the engine ends.

    `events_dir`: a folder that gets a JSON file for each event.
    """
    store = open_store(url, settings)
    path = store.path if slots and isinstance(store, SqliteStore) else None
    async with Engine(store, settings=settings, roles=roles) as engine:
        flows = FlowBackend(engine, cwd, roots=roots)
        worker = None
        if slots:
            options = options or FlowOptions()
            tools = Tools(options.tools, dirs=(cwd,), search_path=os.environ.get("PATH", os.defpath))
            steps = StepHandler(flows, tools=tools, options=options)
            worker = Worker(
                engine, {"step": steps}, slots=slots, requires=steps.requires, name=worker_name, via=options.executor
            )
            worker.start()
        files = None if events_dir is None else EventFiles(engine, events_dir)
        if files is not None:
            files.start()
        try:
            with present(path):
                yield Local(engine, flows, worker)
        finally:
            if files is not None:
                await files.stop()
            if worker is not None:
                await worker.stop(drain_s=drain_s)

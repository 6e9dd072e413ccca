"""A hall for one test: workflows and actions, an engine on a file, and workers that start when the test says so."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from stepwell.engine.engine import Engine
from stepwell.functions.define import Action, Workflow
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.rows import Entry, Run
from stepwell.model.settings import Settings
from stepwell.worker.actions import ActionHandler
from stepwell.worker.inline import Inline
from stepwell.worker.threads import Threads
from stepwell.worker.turns import TurnHandler
from stepwell.worker.worker import Worker
from stepwell.workflow.said import workflow_logger

from .site import Site, opened

QUICK = Settings(poll_ms=50, lease_ms=10_000, kill_grace_ms=300, linger_ms=200, sync="normal")


class NoCalls:
    """A hall has no queries and no mutations."""

    async def call(self, fn: Any, args: Any, kwargs: Mapping[str, Any], *, scope: str = "main", by: str = "") -> Any:
        raise AssertionError(f"{fn} was called")


class Hall(Site):
    """What a test holds: define functions, `start` runs, `work` them, look."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.registry, self.threads = Registry(), Threads(4)
        self.turns: list[TurnHandler] = []

    def close(self) -> None:
        self.threads.close()

    def workflow(self, fn: Callable[..., Any], **options: Any) -> Workflow[Any, Any]:
        made = Workflow[Any, Any]("t", fn, options)
        self.registry.register(made)
        return made

    def action(self, fn: Callable[..., Any], **options: Any) -> Action[Any, Any]:
        made = Action[Any, Any]("t", fn, options)
        self.registry.register(made)
        return made

    def work(self, *, slots: int = 4, runs: int = 100, registry: Registry | None = None) -> Worker:
        """A worker that has started."""
        registry = self.registry if registry is None else registry
        inline = Inline(self.threads, NoCalls(), grace_s=self.engine.settings.kill_grace_ms / 1_000)
        turns = TurnHandler(self.engine, registry, inline, logger=workflow_logger)
        actions = ActionHandler(self.engine, registry, self.threads, NoCalls())
        handlers = {"action": actions}
        worker = Worker(self.engine, handlers, slots=slots, runs=runs, requires=actions.requires, turns=turns)
        worker.start()
        self.workers.append(worker)
        self.turns.append(turns)
        return worker

    async def start(self, workflow: Workflow[Any, Any], *args: Any, run_id: str | None = None, **more: Any) -> str:
        """A new run; its id."""
        run_id = run_id or self.engine.new_id()
        text = workflow.signature.bind(args, {})
        command = c.StartRun(
            run_id, workflow.path, input=text, version=workflow.version, requires=f"workflow:{workflow.path}", **more
        )
        await self.engine.submit(command)
        return run_id

    async def signal(self, run_id: str, name: str, value: Any = None) -> None:
        await self.engine.submit(c.Signal(run_id, name, msgspec.json.encode(value).decode()))

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def result(self, run_id: str) -> Any:
        """The result of a run that has to complete."""
        run = await self.end(run_id)
        assert run.status == "completed", run.error
        return msgspec.json.decode(run.result or "null")

    async def error(self, run_id: str) -> dict[str, Any]:
        """The error of a run that has to fail."""
        run = await self.end(run_id)
        assert run.status == "failed", run.result
        found: dict[str, Any] = msgspec.json.decode(run.error or "null")
        return found

    async def parked(self, run_id: str) -> Run:
        return await self.until(run_id, lambda run: run.status in ("waiting", "sleeping"))

    async def entries(self, run_id: str, kind: str = "") -> list[Entry]:
        number = (await self.run(run_id)).no
        entries = await self.engine.read(lambda reader: reader.entries(number))
        return [one for one in entries if one.kind.startswith(kind)]

    async def kinds(self, run_id: str) -> list[str]:
        return [one.kind for one in await self.entries(run_id)]


@asynccontextmanager
async def hall(cwd: Path, *, settings: Settings = QUICK, **options: Any) -> AsyncIterator[Hall]:
    """Opens one, stops its workers, closes it, and asks the doctor. `options` are those of `opened`."""
    async with opened(cwd / "hall.sqlite", Hall, settings=settings, **options) as made:
        yield made

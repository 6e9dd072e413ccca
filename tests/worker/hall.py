"""A hall for one test: workflows and actions, an engine on a file, and workers that start when the test says so."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.engine.lane import no_fault
from stepwell.functions.define import Action, Workflow
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Entry, Output, Run, Task
from stepwell.model.settings import Settings
from stepwell.worker.actions import ActionHandler
from stepwell.worker.inline import Inline
from stepwell.worker.threads import Threads
from stepwell.worker.turns import TurnHandler
from stepwell.worker.worker import Worker
from stepwell.workflow.said import workflow_logger
from tests.support import assert_lawful, durable

T = TypeVar("T")
PATIENCE_S = 10.0
QUICK = Settings(poll_ms=50, lease_ms=10_000, kill_grace_ms=300, linger_ms=200, sync="normal")


class NoCalls:
    """A hall has no queries and no mutations."""

    async def call(self, fn: Any, args: Any, kwargs: Mapping[str, Any], *, scope: str = "main", by: str = "") -> Any:
        raise AssertionError(f"{fn} was called")


class Hall:
    """What a test holds: define functions, `start` runs, `work` them, look."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.registry = engine, Registry()
        self.workers: list[Worker] = []
        self.turns: list[TurnHandler] = []
        self.threads = Threads(4)
        #: The lane refuses these commands, as one whose queue is full does.
        self.away: tuple[type[c.Command], ...] = ()
        #: Every command that the lane was given.
        self.sent: list[c.Command] = []

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

    async def run(self, run_id: str) -> Run:
        run = await self.engine.read(lambda reader: reader.run("main", run_id))
        assert run is not None
        return run

    async def until(self, run_id: str, fits: Callable[[Run], bool]) -> Run:
        number = (await self.run(run_id)).no
        run = await self.engine.wait_run(number, fits, timeout_s=PATIENCE_S)
        assert run is not None
        return run

    async def end(self, run_id: str) -> Run:
        """The run when it has ended."""
        return await self.until(run_id, lambda run: run.terminal)

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

    async def tasks(self, run_id: str) -> list[Task]:
        number = (await self.run(run_id)).no
        return await self.engine.read(lambda reader: reader.tasks_of(number))

    async def output(self, run_id: str) -> list[Output]:
        number = (await self.run(run_id)).no
        return await self.engine.read(lambda reader: reader.output(number, limit=100_000))


async def true(condition: Callable[[], T]) -> T:
    """What `condition` says as soon as it is true."""
    ends = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
        await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def hall(
    cwd: Path,
    *,
    settings: Settings = QUICK,
    clock_ms: Callable[[], int] = wall_ms,
    fault: Callable[[str], None] = no_fault,
) -> AsyncIterator[Hall]:
    """Opens one, stops its workers, closes it, and asks the doctor."""
    store = durable(cwd / "hall.sqlite", sync="normal")
    with pytest.MonkeyPatch.context() as patch:
        async with Engine(store, settings=settings, clock_ms=clock_ms, fault=fault) as engine:
            made, submit = Hall(engine), engine.lanes.submit

            def gate(command: c.Command, *rest: Any) -> None:
                if isinstance(command, made.away):
                    raise Unavailable("the lane is away")
                made.sent.append(command)
                submit(command, *rest)

            patch.setattr(engine.lanes, "submit", gate)
            try:
                yield made
            finally:
                made.away = ()
                for worker in made.workers:
                    await worker.stop(drain_s=0)
                made.threads.close()
    assert_lawful(durable(cwd / "hall.sqlite"), settings)

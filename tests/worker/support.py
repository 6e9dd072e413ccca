"""A house for one test: packages on disk, an engine on a file, and workers that are started when the test says so."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.events import parse_event
from stepwell.flows.runners.base import Tools
from stepwell.flows.views import full_run_view
from stepwell.model import commands as c
from stepwell.model.rows import Task
from stepwell.model.settings import Settings
from stepwell.store.port import Reader
from stepwell.worker.steps import StepHandler
from stepwell.worker.why import why_of
from stepwell.worker.worker import Worker

from .site import PATIENCE_S, Site, opened, true

QUICK = Settings(poll_ms=50, lease_ms=10_000, kill_grace_ms=400, sync="normal")
OK = """echo 'FLOW_RESULT {"status":"completed"}'\n"""


class Time:
    """The wall clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return wall_ms() + self.ahead_ms


class House(Site):
    """What a test holds: `add` packages, `send` events, `work` them, look."""

    def __init__(self, cwd: Path, engine: Engine) -> None:
        super().__init__(engine)
        self.cwd, self.flows = cwd, FlowBackend(engine, cwd)

    def add(self, script: str, keys: str = "", *, flow: str = "demo", type_: str = "demo") -> Path:
        """A flow with one step `go`, a shell script; `keys` are further lines of the step."""
        root = self.cwd / "flows" / flow
        (root / "exec").mkdir(parents=True, exist_ok=True)
        path = root / "exec/go.sh"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        step = f'[[steps]]\nname = "go"\nrunner = "command"\nscript = "exec/go.sh"\n{keys}\n'
        (root / "flow.toml").write_text(
            f'name = "{flow}"\nversion = 1\n{step}[steps.trigger]\ntype = "{type_}"\n', encoding="utf-8"
        )
        return root

    async def send(self, event_id: str = "e", payload: Any = None, type_: str = "demo") -> list[str]:
        """The runs of a new event."""
        body = {"id": event_id, "type": type_, "payload": payload}
        accepted = await self.flows.dispatch(parse_event(body, now_iso="2026-01-01T00:00:00Z"))
        return accepted.run_ids

    async def one(self, event_id: str = "e", payload: Any = None) -> str:
        """The one run of a new event."""
        (run_id,) = await self.send(event_id, payload)
        return run_id

    def work(self, *, slots: int = 4, name: str | None = None) -> Worker:
        """A worker that has started."""
        handler = StepHandler(self.flows, tools=Tools())
        worker = Worker(self.engine, {"step": handler}, slots=slots, requires=handler.requires, name=name)
        worker.start()
        self.workers.append(worker)
        return worker

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def view(self, run_id: str) -> dict[str, Any]:
        """The run as the server shows it."""

        def query(reader: Reader) -> dict[str, Any]:
            run = reader.run("main", run_id)
            assert run is not None
            why, output = why_of(reader, run, self.engine), reader.output(run.no, limit=100_000)
            return full_run_view(run, None, why, reader.entries(run.no), output)

        return await self.engine.read(query)

    async def task(self, run_id: str) -> Task:
        """The task of a run's body."""
        run = await self.run(run_id)
        return next(task for task in await self.tasks(run_id) if task.k == run.turn)

    async def said(self, run_id: str) -> str:
        """Everything that a run said, of all attempts and streams."""
        return "".join(one.text for one in await self.output(run_id))

    async def kinds(self, run_id: str) -> list[str]:
        """The run's journal: the kinds of its entries, an attempt's end with its reason."""
        view = await self.view(run_id)
        return [
            entry["kind"] + (":" + entry["data"]["reason"] if entry["kind"] == "attempt.ended" else "")
            for entry in view["journal"]
        ]

    async def said_until(self, run_id: str, text: str) -> str:
        """What the run said, once `text` is in it."""
        ends = time.monotonic() + PATIENCE_S
        while text not in (said := await self.said(run_id)):
            assert time.monotonic() < ends, f"{text!r} is not in {said[-200:]!r}"
            await asyncio.sleep(0.01)
        return said

    async def pid(self) -> int:
        """The process that wrote its number to `pid`."""
        return int(await true(lambda: _text(self.cwd / "pid")))

    async def claim(self, worker: str = "thief") -> c.Leased:
        """The one ready task, taken by somebody else."""
        (leased,) = await self._claimed(worker)
        return leased

    async def stolen(self) -> c.Leased:
        """The one task whose lease is over, taken by somebody else; while a lane writes to it, it is left out."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.engine.submit(c.Sweep())
                for leased in await self._claimed("thief"):
                    return leased

    async def _claimed(self, worker: str) -> Sequence[c.Leased]:
        return (await self.engine.submit(c.Claim(worker, self.engine.secret(), limit=10, lease_ms=10_000))).tasks


@asynccontextmanager
async def house(cwd: Path, *, settings: Settings = QUICK, **options: Any) -> AsyncIterator[House]:
    """Opens one, stops its workers, closes it, and asks the doctor. `options` are those of `opened`."""
    async with opened(cwd / "house.sqlite", partial(House, cwd), settings=settings, **options) as made:
        yield made


def state(pid: int) -> str | None:
    """R, S, D, T or Z, as ps has it; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    return state(pid) not in (None, "Z")


def group(pgid: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, group_id = rest.rpartition(")")[2].split()[:3]
        if int(group_id) == pgid and state != "Z":
            found.append(int(pid))
    return found


def _text(path: Path) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return ""
    return text if text.endswith("\n") else ""

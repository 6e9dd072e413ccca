"""A worker of the storm: does random commands on a shared file until it is killed or has done its share.

It keeps a ledger with plain appends to a file, which outlive a SIGKILL: a line of intent before a command is sent, and
a line with the answer after. A step's result, a signal's payload and a run's result carry a name that is given once.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted, raw
from stepwell.model.errors import StepwellError
from stepwell.model.settings import Settings
from tests.support import durable

LEASE_MS = 1_500
SETTINGS = Settings(poll_ms=200, lost_leases=1_000)
ACTORS = 4
STEPS = 12

_encode = msgspec.json.Encoder().encode


class Line(Struct, omit_defaults=True):
    """One line of a ledger. `was` is intent, done or refused; `name` is what the effect carries."""

    was: str
    what: str
    name: str
    run: str = ""
    run_no: int = 0
    seq: int = 0
    key: str = ""
    error: str = ""
    wait_ms: int = 0
    lock_ms: int = 0


class Ledger:
    """Appends lines; each is one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: Line) -> None:
        os.write(self._fd, _encode(line) + b"\n")


class Worker:
    """Some actors that share an engine. Its name begins with that of the storm, which all ids carry."""

    def __init__(self, engine: Engine, ledger: Ledger, name: str, share: int, runs: int) -> None:
        self.engine, self.ledger, self.name = engine, ledger, name
        self.left, self.runs, self.count = share, runs, 0
        self.storm = name.partition(".")[0]
        self.random = random.Random(name)

    async def work(self) -> None:
        """Does its share, with several commands under way at a time."""
        await asyncio.gather(*(self.actor() for _ in range(ACTORS)))

    async def actor(self) -> None:
        doings = (self.start, self.signal, self.event, self.turn)
        while self.left > 0:
            doing = self.random.choices(doings, weights=(10, 12, 5, 40))[0]
            await doing()

    def once(self) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"{self.name}.{self.count}"

    async def do(self, what: str, name: str, command: c.Command, **about: Any) -> Any:
        """Sends a command; its reply, or None when it was refused. Both are in the ledger."""
        self.left -= 1
        self.ledger.write(Line("intent", what, name, **about))
        sent = time.monotonic()
        try:
            reply = await self.engine.submit(command)
        except StepwellError as refusal:
            self.ledger.write(Line("refused", what, name, error=refusal.code, wait_ms=_ms_since(sent), **about))
            return None
        about["seq"] = getattr(reply, "first", getattr(reply, "seq", 0))
        lock_ms = int(self.engine.lanes.timings.longest_begin * 1_000)
        self.ledger.write(Line("done", what, name, wait_ms=_ms_since(sent), lock_ms=lock_ms, **about))
        return reply

    def any_run(self) -> str:
        return f"{self.storm}-run-{self.random.randrange(self.runs)}"

    async def start(self) -> None:
        run = self.any_run()
        await self.do("start", self.once(), c.StartRun(run, "storm"), run=run)

    async def signal(self) -> None:
        """Half of the signals have a dedup key, and are sent twice."""
        run, name = self.any_run(), self.once()
        dedup = name if self.random.random() < 0.5 else None
        command = c.Signal(run, "go", f'"{name}"', dedup=dedup)
        for _ in range(2 if dedup else 1):
            await self.do("signal", name, command, run=run)

    async def event(self) -> None:
        """An event that two workers may send; each that is told yes is told the same runs."""
        name = f"{self.storm}-event-{self.random.randrange(self.runs)}"
        new = c.NewEvent(name, "storm", "2026", body_hash=name)
        matches = (c.Match("flow", "one"), c.Match("flow", "two"))
        await self.do("event", name, c.AcceptEvent(new, matches))

    async def turn(self) -> None:
        """Claims a run, goes on where its journal ends, and finishes, parks, lets go or forgets it."""
        name = self.once()
        claimed = await self.do("claim", name, c.Claim(self.name, os.urandom(16).hex(), lease_ms=LEASE_MS))
        for task in claimed.tasks if claimed else ():
            await (self.flow_step(task) if task.kind == "step" else self.workflow(task))

    async def flow_step(self, task: c.Leased) -> None:
        name = self.once()
        await self.do("say", name, c.Say(task.lease, task.output_n, (("stdout", name),)), run=task.run.id)
        await self.finish(task, 1)

    async def workflow(self, task: c.Leased) -> None:
        done = sum(entry.kind == "step.completed" for entry in task.journal)
        n, seen = 1, task.seen
        while self.left > 0 and done < STEPS and self.random.random() < 0.85:
            name, key = self.once(), f"step#{done + 1}"
            draft = c.Draft(StepCompleted(raw(f'"{name}"')), key)
            about = {"run": task.run.id, "run_no": task.run.no, "key": key}
            written = await self.do("record", name, c.Record(task.lease, n, seen, (draft,)), **about)
            if written is None:
                return
            done, n, seen = done + 1, n + 1, written.head
        if done >= STEPS:
            await self.finish(task, n)
        elif (fate := self.random.random()) < 0.6:
            await self.do("park", self.once(), c.Park(task.lease, n, seen, ("signal:go",)), run=task.run.id)
        elif fate < 0.9:
            await self.do("release", self.once(), c.Release(task.lease, n), run=task.run.id)

    async def finish(self, task: c.Leased, n: int) -> None:
        name = self.once()
        command = c.Finish(task.lease, n, c.Completed(f'"{name}"'))
        if await self.do("finish", name, command, run=task.run.id, run_no=task.run.no):
            await self.do("finish", name, command, run=task.run.id, run_no=task.run.no)  # as if its answer was lost


def _ms_since(sent: float) -> int:
    return int((time.monotonic() - sent) * 1_000)


async def main(path: Path, ledger: Path, name: str, share: int, runs: int) -> None:
    async with Engine(durable(path), settings=SETTINGS) as engine:
        await Worker(engine, Ledger(ledger), name, share, runs).work()


if __name__ == "__main__":
    file, ledger, name, share, runs = sys.argv[1:]
    asyncio.run(main(Path(file), Path(ledger), name, int(share), int(runs)))

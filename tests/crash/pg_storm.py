"""The storm on PostgreSQL: servers and workers on one database, one of which is killed each second, and it as well.

Events come over HTTP, workflows are started, signaled and canceled by a program on the same database; whoever sends
asks again, with an id of its own, until it is told.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psycopg
from msgspec import Struct, field

from stepwell import Conflict, Stepwell, Unavailable
from stepwell.model.settings import Settings
from tests.crash import flow_storm, workflow_storm
from tests.crash.crew import Crew, all_ended, new_mark
from tests.crash.flow_packages import write_packages
from tests.crash.flow_processes import MARK
from tests.crash.pg_app import app, ferry
from tests.crash.places import ForkedPlace
from tests.crash.posters import AGAIN_S, Posters, free_port
from tests.crash.workflow_app import LOG, PAUSE, arrived, order, voyage
from tests.server.support import environ
from tests.support.pgbouncer import Pooler
from tests.support.postgres import Server

T = TypeVar("T")
POSTERS = 8
#: One stroke in so many stops a process for a while, in seconds: a lease is 3.
STOP, STOPPED_S = 5, (0.5, 5.0)
SETTINGS = {
    "STEPWELL_POLL_MS": "200",
    "STEPWELL_LINGER_MS": "300",
    "STEPWELL_KILL_GRACE_MS": "300",
    "STEPWELL_LOST_LEASES": "1000",
}


class Plan(Struct, frozen=True):
    """How many events and runs, sent over `send_s`; for `kill_s` a process is killed every `every_s`.

    The database crashes `crashes` times within that. A step or an action takes up to `pause_s`.
    """

    seed: int
    events: int
    voyages: int
    ferries: int
    send_s: float
    kill_s: float
    limit_s: float
    kinds: Mapping[str, int] = field(default_factory=flow_storm.KINDS.copy)
    pooled: bool = False
    every_s: float = 1.0
    crashes: int = 2
    pause_s: float = 0.05
    servers: int = 3
    workers: int = 6
    slots: int = 4


class Report(Struct):
    """What a storm was like, and what its senders were told."""

    flows: flow_storm.Report = field(default_factory=flow_storm.Report)
    workflows: workflow_storm.Report = field(default_factory=workflow_storm.Report)
    kills: Counter[str] = field(default_factory=Counter)
    stopped: int = 0
    restarts: int = 0
    refused: int = 0  # how often somebody was started while the database was away
    again: int = 0  # how often a sender of workflows had to ask again
    started: set[str] = field(default_factory=set)  # workflows whose start was acknowledged
    ended: Counter[str] = field(default_factory=Counter)
    calm_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        work = self.workflows
        return (
            f"{len(self.flows.told)} events, {len(self.started)} starts; {sum(self.ended.values())} runs "
            f"{dict(self.ended)} in {self.seconds:.0f} s; kills {dict(self.kills)}, {self.stopped} stopped, "
            f"{self.restarts} crashes of the database, {self.refused} starts without it; "
            f"asked again {self.flows.unanswered} + {self.again} times; "
            f"{self.calm_s:.0f} s from the last kill to the last end; flows {dict(self.flows.attempts)}; "
            f"workflows: {work.entries:,} entries, {work.mutations} mutations, {work.actions} actions begun "
            f"{work.action_calls} times, {work.steps} steps begun {work.step_calls} times, "
            f"leases {dict(sorted(work.attempts.items()))}"
        )


class Storm:
    """One storm in a folder of its own, on a server of its own."""

    def __init__(self, cwd: Path, plan: Plan) -> None:
        self.cwd, self.plan, self.report = cwd, plan, Report()
        self.rng = random.Random(plan.seed)
        self.mark = new_mark(plan.seed)
        self.lines, self.steps = cwd / "lines", cwd / "steps"
        self.lines.touch()
        self.steps.mkdir()
        write_packages(cwd)
        self.server = Server(synchronous_commit="on", autovacuum="on")
        self.pooler = Pooler(self.server.conninfo) if plan.pooled else None
        self.url = self.server.url if self.pooler is None else self.pooler.url()
        self.ports = [free_port() for _ in range(plan.servers)]
        self.places = self._places()
        self.crew = Crew(self.mark, self.places)

    def _places(self) -> list[ForkedPlace]:
        plan = self.plan
        said = {LOG: str(self.lines), PAUSE: str(plan.pause_s), MARK: self.mark, "STORM_LOG": str(self.steps)}
        env = environ(**said, **SETTINGS)
        env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parents[2]}"
        run = [sys.executable, "-m", "tests.crash.pg_process"]
        where = ["--cwd", str(self.cwd), "--db", self.url, "--app", "tests.crash.pg_app:app"]
        slots = ["--slots", str(plan.slots)]
        servers = [
            ForkedPlace(self.cwd, f"server{n}", [*run, "serve", *where, *slots, "--port", str(port)], env)
            for n, port in enumerate(self.ports)
        ]
        return servers + [
            ForkedPlace(self.cwd, f"worker{n}", [*run, "worker", *where, *slots], env) for n in range(plan.workers)
        ]

    async def rage(self) -> None:
        """All of it: what is sent, kills, crashes, calm, the last ends, the stop."""
        began = time.monotonic()
        async with self.crew.at_work(), asyncio.timeout(self.plan.limit_s):
            await asyncio.gather(self._strike(), self._crash(), self._post_all(), self._sail_all())
            calm = time.monotonic()
            with psycopg.connect(self.server.conninfo, autocommit=True) as db:
                await all_ended(db)
            self.report.calm_s = time.monotonic() - calm
            await self.crew.all_open()
        self.report.seconds = time.monotonic() - began
        self.report.refused = sum(place.refused for place in self.places)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _post_all(self) -> None:
        posters = Posters(self.plan.seed, self.ports, self.report.flows, POSTERS)
        await posters.post(self.plan.events, self.plan.kinds, self.plan.send_s)

    async def _sail_all(self) -> None:
        settings = Settings(poll_ms=500, lost_leases=1_000)
        async with Stepwell(self.url, app, settings=settings, worker=False) as sw:
            voyages = [self._voyage(sw, number) for number in range(self.plan.voyages)]
            ferries = [self._ferry(sw, number) for number in range(self.plan.ferries)]
            await asyncio.gather(*voyages, *ferries)

    async def _voyage(self, sw: Stepwell, number: int) -> None:
        """Starts one, and gives it its order; some get it twice."""
        rng = random.Random(f"{self.plan.seed} voyage {number}")
        await asyncio.sleep(rng.uniform(0, self.plan.send_s))
        mine = sw.options(id=f"voyage-{number}", on_complete=arrived, context=number)
        run = await self._insist(lambda: mine.start(voyage, number))
        self.report.started.add(run.id)
        await asyncio.sleep(rng.uniform(0, 1))
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(Conflict):  # it may have ended after the first
                await self._insist(lambda: run.signal(order, f"order of {run.id}", key="first"))

    async def _ferry(self, sw: Stepwell, number: int) -> None:
        """Starts one, and calls it back; some twice."""
        rng = random.Random(f"{self.plan.seed} ferry {number}")
        await asyncio.sleep(rng.uniform(0, self.plan.send_s))
        run = await self._insist(lambda: sw.options(id=f"ferry-{number}").start(ferry, number))
        self.report.started.add(run.id)
        await asyncio.sleep(rng.uniform(0, 2))
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(Conflict):  # it may have ended after the first
                await self._insist(lambda: run.cancel())

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except Unavailable:
                self.report.again += 1
                await asyncio.sleep(AGAIN_S)

    # ── killing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _strike(self) -> None:
        """Kills somebody who works, or stops him for longer than his leases, as long as planned."""
        ends = time.monotonic() + self.plan.kill_s
        while time.monotonic() < ends:
            await asyncio.sleep(self.plan.every_s)
            victims = [place for place in self.places if place.is_open()] or self.places
            victim = self.rng.choice(victims)
            if self.rng.randrange(STOP) == 0:
                self.report.stopped += self.crew.stop(victim, self.rng.uniform(*STOPPED_S))
            else:
                self.report.kills[victim.kind] += victim.kill()

    async def _crash(self) -> None:
        for _ in range(self.plan.crashes):
            await asyncio.sleep(self.plan.kill_s / (self.plan.crashes + 1))
            await asyncio.to_thread(self.server.crash)
            await asyncio.sleep(self.rng.uniform(0, 0.5))
            await asyncio.to_thread(self.server.start)
            self.report.restarts += 1

    def clear(self) -> None:
        """Leaves nobody behind, nor a database."""
        self.crew.clear()
        if self.pooler is not None:
            self.pooler.close()
        self.server.close()

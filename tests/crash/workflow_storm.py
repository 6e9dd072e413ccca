"""The workflow storm as its parent sees it: processes that work on one file and are killed at random moments.

One is a server that has the app, the others have it open as any program does. Some workers are stopped for a while
instead, most often for longer than their leases last.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from msgspec import Struct, field

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from tests.crash.crew import Crew, all_ended, new_mark
from tests.crash.flow_processes import MARK
from tests.crash.places import Place
from tests.crash.workflow_app import LOG, PAUSE
from tests.server.support import environ, stepwell
from tests.support import by_hand, durable, durable_url

#: One kill in so many meets a process that has not opened the database yet, one in so many the one that starts.
EARLY, STARTER = 10, 8
#: A stroke in so many stops a worker for a while, in seconds.
FREEZE, FROZEN_S = 5, (0.5, 4.0)

#: The server's settings, which has none but those that users have: its leases are the shortest that there are.
SERVER = {"STEPWELL_LEASE_MS": "10000", "STEPWELL_POLL_MS": "100", "STEPWELL_LOST_LEASES": "1000"}


class Plan(Struct, frozen=True):
    """So many voyages, started over the time of `kills` kills of workers that have the database open.

    One kill every `every_s` on the average; a step or an action takes up to `pause_s`.
    """

    seed: int
    voyages: int
    kills: int
    limit_s: float
    every_s: float = 0.3
    pause_s: float = 0.1
    workers: int = 3


class Report(Struct):
    """What a storm was like."""

    kills: Counter[str] = field(default_factory=Counter)
    frozen: int = 0
    attempts: Counter[str] = field(default_factory=Counter)  # by kind of task and how they ended
    entries: int = 0
    mutations: int = 0
    actions: int = 0
    action_calls: int = 0
    steps: int = 0
    step_calls: int = 0
    calm_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"kills {dict(self.kills)}, {self.frozen} workers frozen, in {self.seconds:.0f} s; "
            f"{self.calm_s:.0f} s from the last kill to the last end; "
            f"{self.entries:,} entries; {self.mutations} mutations; {self.actions} actions, begun {self.action_calls} "
            f"times; {self.steps} steps, begun {self.step_calls} times; leases {dict(sorted(self.attempts.items()))}"
        )


class Storm:
    """One storm in a folder of its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan, self.report = folder, plan, Report()
        self.path, self.log = folder / "sea.sqlite", folder / "log"
        self.rng = random.Random(plan.seed)
        mark = new_mark(plan.seed)
        env = environ(**{LOG: str(self.log), PAUSE: str(plan.pause_s), MARK: mark}, **SERVER)
        env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parents[2]}"
        run = [sys.executable, "-m", "tests.crash.workflow_process"]
        start = [*run, "start", str(folder), str(plan.voyages), str(plan.kills * plan.every_s)]
        self.starter = Place(folder, "starter", start, env)
        work = [*run, "work", str(folder)]
        where = ("--cwd", str(folder), "--db", durable_url(self.path), "--app", "tests.crash.workflow_app:app")
        serve = stepwell("serve", *where, "--port", "0", "--slots", "6")
        self.workers = [Place(folder, f"worker{n}", work, env) for n in range(plan.workers)]
        self.workers.append(Place(folder, "server", serve, env))
        self.crew = Crew(mark, [self.starter, *self.workers])

    async def rage(self) -> None:
        """All of it: starts, signals, kills, calm, the last ends, the stop."""
        began = time.monotonic()
        async with self.crew.at_work(), asyncio.timeout(self.plan.limit_s):
            await asyncio.gather(self._strike(), self._order_all())
            with by_hand(self.path) as db:
                await all_ended(db)
            self.report.calm_s = time.monotonic() - self._calm
            await self.crew.all_open()
        self.report.seconds = time.monotonic() - began

    async def _strike(self) -> None:
        kills, plan = self.report.kills, self.plan
        while kills["worker"] + kills["server"] < plan.kills:
            await asyncio.sleep(self.rng.uniform(0, 2 * plan.every_s))
            victim = self.starter if self.rng.randrange(STARTER) == 0 else self.rng.choice(self.workers)
            works = victim.is_open()
            if works and victim is not self.starter and self.rng.randrange(FREEZE) == 0:
                self.report.frozen += self.crew.stop(victim, self.rng.uniform(*FROZEN_S))
            elif (works or self.rng.randrange(EARLY) == 0) and victim.kill():
                kills[victim.kind if works else "early"] += 1
        self._calm = time.monotonic()

    async def _order_all(self) -> None:
        """Gives each voyage its order, some time after its start was acknowledged; some get it twice.

        Without roles, so that nothing but the processes that get killed keeps house.
        """
        rng, left = random.Random(f"{self.plan.seed} orders"), self.plan.voyages
        ordered: set[str] = set()
        async with Engine(durable(self.path), roles=False) as engine:
            while left:
                await asyncio.sleep(rng.uniform(0, 0.2))
                for run_id in sorted(self.acknowledged() - ordered):
                    if rng.random() < 0.2:
                        signal_ = c.Signal(run_id, "order", f'"order of {run_id}"', dedup="first")
                        for _ in range(rng.choice((1, 1, 2))):
                            await engine.submit(signal_)
                        ordered.add(run_id)
                        left -= 1

    def acknowledged(self) -> set[str]:
        """The runs whose start was acknowledged; a line that a kill cut short is none."""
        path = self.folder / "acknowledged"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return {line.strip() for line in lines if line.endswith("\n")}

    def clear(self) -> None:
        """Leaves nobody behind."""
        self.crew.clear()

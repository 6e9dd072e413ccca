"""The workflow storm as its parent sees it: processes that work on one file and are killed at random moments.

One is a server that has the app, the others have it open as any program does. Some workers are stopped for a while
instead, most often for longer than their leases last.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from tests.crash.flow_processes import MARK, marked
from tests.crash.flow_storm import Keeper, Living
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
        self._melting: list[asyncio.Task[None]] = []
        self.mark = f"{os.getpid()}-{plan.seed}-{os.urandom(4).hex()}"
        env = environ(**{LOG: str(self.log), PAUSE: str(plan.pause_s), MARK: self.mark}, **SERVER)
        env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parents[2]}"
        run = [sys.executable, "-m", "tests.crash.workflow_process"]
        start = [*run, "start", str(folder), str(plan.voyages), str(plan.kills * plan.every_s)]
        self.starter = Keeper(folder, "starter", start, env)
        work = [*run, "work", str(folder)]
        where = ("--cwd", str(folder), "--db", durable_url(self.path), "--app", "tests.crash.workflow_app:app")
        serve = stepwell("serve", *where, "--port", "0", "--slots", "6")
        self.workers = [Keeper(folder, f"worker{n}", work, env) for n in range(plan.workers)]
        self.workers.append(Keeper(folder, "server", serve, env))

    async def rage(self) -> Report:
        """All of it: starts, signals, kills, calm, the last ends, the stop."""
        began = time.monotonic()
        places = [self.starter, *self.workers]
        keeping = [asyncio.create_task(place.keep()) for place in places]
        try:
            async with asyncio.timeout(self.plan.limit_s):
                await asyncio.gather(self._strike(), self._order_all())
                await self._all_ended()
                await self._all_open()
        finally:
            for task in self._melting:
                task.cancel()
            await asyncio.gather(*self._melting, return_exceptions=True)
            for place in places:
                place.end()
            await asyncio.gather(*keeping)
        self.report.seconds = time.monotonic() - began
        faults = [fault for place in places for fault in place.faults]
        assert not faults, (faults, self.logs())
        return self.report

    def logs(self) -> str:
        """The end of what the processes said."""
        return "\n".join(path.read_text()[-4_000:] for path in sorted(self.folder.glob("*.log")))

    async def _strike(self) -> None:
        kills, plan = self.report.kills, self.plan
        while kills["worker"] + kills["server"] < plan.kills:
            await asyncio.sleep(self.rng.uniform(0, 2 * plan.every_s))
            victim = self.starter if self.rng.randrange(STARTER) == 0 else self.rng.choice(self.workers)
            works = is_open(victim)
            if works and victim is not self.starter and self.rng.randrange(FREEZE) == 0:
                self._freeze(victim)
            elif (works or self.rng.randrange(EARLY) == 0) and victim.kill():
                kills[victim.name.rstrip("0123456789") if works else "early"] += 1
        self._calm = time.monotonic()

    def _freeze(self, place: Keeper) -> None:
        process = place.process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGSTOP)
            self.report.frozen += 1
            self._melting.append(asyncio.create_task(self._melt(process)))

    async def _melt(self, process: Living) -> None:
        try:
            await asyncio.sleep(self.rng.uniform(*FROZEN_S))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)

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

    async def _all_ended(self) -> None:
        with by_hand(self.path) as db:
            query = "select id, status, hold from run where status not in ('completed', 'failed', 'canceled')"
            while left := db.execute(query).fetchall():  # rows of other processes, no event of ours
                held = [one for one in left if one[2] is not None]
                assert not held, held
                await asyncio.sleep(0.1)
        self.report.calm_s = time.monotonic() - self._calm

    async def _all_open(self) -> None:
        """Whoever was started last can be told to end, too."""
        while not all(map(is_open, (self.starter, *self.workers))):  # noqa: ASYNC110 - files of other processes
            await asyncio.sleep(0.05)

    def leftovers(self) -> list[int]:
        """The processes of this storm that still live."""
        return [pid for pid, _ in marked(MARK, {self.mark})]

    def clear(self) -> None:
        """Kills whoever is left, so that a storm that fails leaves nobody either."""
        for pid in self.leftovers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_open(place: Keeper) -> bool:
    """Whether it has opened the database: from then on it catches SIGTERM."""
    process = place.process
    if process is None or process.returncode is not None:
        return False
    with suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught & 1 << (signal.SIGTERM - 1))
    return False

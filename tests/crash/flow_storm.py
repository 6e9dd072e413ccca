"""The flow storm: a server, workers and steps that are killed at random while events are posted until acknowledged."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from tests.crash.crew import Crew, all_ended, new_mark
from tests.crash.flow_packages import write_packages
from tests.crash.flow_processes import MARK, marked
from tests.crash.places import Place
from tests.crash.posters import Posters, Sent, free_port
from tests.server.support import at_home, database, stepwell
from tests.support import by_hand

LEASE_MS = 10_000
POSTERS = 4
#: A storm has at least so many kills of each kind.
FEW = 3
#: Which share of the events has which kind of step.
KINDS = {"quick": 5, "flaky": 5, "sleepy": 5, "family": 5, "chain": 3, "doomed": 2, "stubborn": 1}


class Plan(Struct, frozen=True):
    """How many events over how many seconds; kills go on `kill_s` long, one every 100 to 300 ms."""

    seed: int
    events: int
    post_s: float
    kill_s: float
    limit_s: float
    workers: int = 2
    slots: int = 4
    server_slots: int = 0


class Report(Sent):
    """What a storm was like, and what its senders were told."""

    kills: Counter[str] = field(default_factory=Counter)
    struck: set[str] = field(default_factory=set)  # attempts whose process was killed
    attempts: Counter[str] = field(default_factory=Counter)  # by how they ended
    ends: Counter[str] = field(default_factory=Counter)
    unseen: int = 0  # attempts that were killed before their first line
    calm_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{len(self.told)} events, {sum(self.ends.values())} runs in {self.seconds:.0f} s; "
            f"kills {dict(self.kills)}; {self.unanswered} posts without an answer; ends {dict(self.ends)}; "
            f"attempts {dict(self.attempts)}, {self.unseen} of them killed before their first line; "
            f"{self.calm_s:.0f} s from the last kill to the last end"
        )


class Storm:
    """One storm in a folder of its own."""

    def __init__(self, cwd: Path, plan: Plan) -> None:
        self.cwd, self.plan, self.report = cwd, plan, Report()
        self.rng = random.Random(plan.seed)
        self.mark = new_mark(plan.seed)
        self.logs = cwd / "log"
        self.logs.mkdir()
        write_packages(cwd)
        self.port = free_port()
        self.server, *self.workers = places = self._places()
        self.crew = Crew(self.mark, places)
        self.posting = True

    def _places(self) -> list[Place]:
        env = at_home(
            self.cwd,
            STEPWELL_LEASE_MS=str(LEASE_MS),
            STEPWELL_POLL_MS="100",
            STEPWELL_KILL_GRACE_MS="300",
            STEPWELL_LOST_LEASES="1000",
            STORM_LOG=str(self.logs),
            **{MARK: self.mark},
        )
        where, slots = ("--cwd", str(self.cwd)), ("--slots", str(self.plan.slots))
        serve = stepwell("serve", *where, "--port", str(self.port), "--slots", str(self.plan.server_slots))
        workers = [
            Place(self.cwd, f"worker{n}", stepwell("worker", *where, *slots), env) for n in range(self.plan.workers)
        ]
        return [Place(self.cwd, "server", serve, env), *workers]

    async def rage(self) -> None:
        """All of it: posts, kills, calm, the last ends, the stop."""
        began = time.monotonic()
        async with self.crew.at_work(), asyncio.timeout(self.plan.limit_s):
            await asyncio.gather(self._strike(), self._post_all())
            calm = time.monotonic()
            with by_hand(database(self.cwd)) as db:
                await all_ended(db)
            self.report.calm_s = time.monotonic() - calm
        self.report.seconds = time.monotonic() - began

    async def _post_all(self) -> None:
        posters = Posters(self.plan.seed, [self.port], self.report, POSTERS)
        await posters.post(self.plan.events, KINDS, self.plan.post_s)
        self.posting = False

    async def _strike(self) -> None:
        """As long as planned; on a slow machine, as long as events come. While steps are behind, nobody else is killed:
        those who are always killed at their start do no steps.
        """
        ends, kills, kinds = time.monotonic() + self.plan.kill_s, self.report.kills, ("server", "worker", "step")
        while time.monotonic() < ends or (self.posting and min(kills[kind] for kind in kinds) < FEW):
            await asyncio.sleep(self.rng.uniform(0.1, 0.3))
            behind = kills["step"] < min(kills["server"], kills["worker"])
            kind = "step" if behind else self.rng.choice(kinds)
            if kind == "server":
                done = self.server.kill()
            elif kind == "worker":
                done = self.rng.choice(self.workers).kill()
            else:
                done = self._kill_step()
            kills[kind] += done

    def _kill_step(self) -> bool:
        """Kills one process of a step, or the whole group."""
        found = [(pid, names["CODEX_FLOW_ATTEMPT_ID"]) for pid, names in marked(MARK, {self.mark}) if _is_step(names)]
        if not found:
            return False
        pid, attempt = self.rng.choice(sorted(found))
        with suppress(ProcessLookupError):
            if self.rng.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(os.getpgid(pid), signal.SIGKILL)
            self.report.struck.add(attempt)
            return True
        return False

    def clear(self) -> None:
        """Leaves nobody behind."""
        self.crew.clear()


def _is_step(names: dict[str, str]) -> bool:
    return "CODEX_FLOW_ATTEMPT_ID" in names

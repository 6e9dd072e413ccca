"""The worker: claims, heartbeats, drain. What a task means is its handler's business."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.worker.claims import BROKEN_HANDLER_MS, Claims, Handler, Requires
from stepwell.worker.heart import Heart
from stepwell.worker.held import NOTICE_MS, Held

log = logging.getLogger("stepwell.worker")
#: How long the store gets to take back what this worker holds at its end.
HAND_BACK_S = 5.0


def worker_name() -> str:
    """New for each process, so that nobody mistakes a restarted worker for a live one."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"[-128:]


class Turns(Protocol):
    """What runs workflows, see `worker.turns`."""

    def requires(self) -> tuple[str, ...]:
        """The workflows that are here."""

    async def __call__(self, held: Held) -> None:
        """Runs one for the time of a lease."""

    def drain(self) -> None:
        """Keeps nothing that only waits, from now on."""

    def close(self) -> None:
        """Nothing is hosted any more."""

    def told_time(self, now: int, at: float) -> None:
        """The store's clock said `now` (ms) when this machine's steady clock was past `at` (seconds)."""


class Worker:
    """Runs up to `slots` steps and actions at once, and `runs` workflows, on the caller's event loop.

    `handlers` by task kind, for what takes a slot. `requires` says what of that this worker has, asked anew at each
    claim; None takes everything, so it is not for a worker that has `turns`, which run its workflows. `via` says how it
    runs its tasks, for the record.
    """

    def __init__(
        self,
        engine: Engine,
        handlers: Mapping[str, Handler],
        *,
        slots: int = 4,
        requires: Requires = lambda: None,
        turns: Turns | None = None,
        runs: int = 1_000,
        pools: Sequence[str] = (),
        name: str | None = None,
        via: str = "",
    ) -> None:
        self.name = name or worker_name()
        self._engine, self._turns = engine, turns
        self._heart = Heart(engine, self.name, lambda now, at: None if turns is None else turns.told_time(now, at))
        self._slots = Claims(
            engine, self._heart, handlers, worker=self.name, limit=slots, requires=requires, pools=pools, via=via
        )
        self._claims = [self._slots]
        self._runs: Claims | None = None
        if turns is not None:
            self._runs = Claims(
                engine,
                self._heart,
                {"turn": turns},
                worker=self.name,
                limit=runs,
                requires=turns.requires,
                pools=pools,
                what="runs",
            )
            self._claims.append(self._runs)
        self._draining = False
        self._hurry = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """How many steps and actions it runs at once."""
        return self._slots.limit

    @property
    def trouble(self) -> str | None:
        """Why it claims nothing now; None when all is well."""
        if self._draining:
            return "it is being stopped"
        if not all(claims.runs for claims in self._claims) or not self._heart.beats:
            return "it does not run"
        return next((claims.away for claims in self._claims if claims.away), None)

    @property
    def busy(self) -> int:
        """How many steps and actions are under way, and how many runs that have something to do."""
        return sum(claims.busy for claims in self._claims)

    async def start_run(self, command: c.StartRun) -> c.Started:
        """Starts a run of a workflow, and leases it in the same commit if it would be claimed here anyway."""
        claims = self._runs
        return await (self._engine.submit(command) if claims is None else claims.starts(command))

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._heart.start(loop)
        for claims in self._claims:
            claims.start()
        self._ending = asyncio.create_task(self._ends(), name="stepwell-ends")

    async def stop(self, *, drain_s: float = 30.0) -> None:
        """Claims nothing more; lets what runs end within `drain_s`; stops and hands back the rest.

        Runs that only wait are handed back at once. Where the store is away and nothing can be handed back, the leases
        are left to run out.
        """
        self._draining = True
        if self._turns is not None:
            self._turns.drain()
        await asyncio.gather(*(claims.stop() for claims in self._claims))
        if drain_s > 0:
            hurry = asyncio.ensure_future(self._hurry.wait())
            done = asyncio.ensure_future(self._ended_within(drain_s))
            await asyncio.wait((hurry, done), return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            done.cancel()
        for held in self._held():
            held.hand_back()
        await self._ended_within(self._engine.settings.kill_grace_ms / 1_000 + HAND_BACK_S)
        for held in self._held():
            log.warning("run %s cannot be handed back; its lease will run out", held.leased.run.id)
            held.lose()
        await self._ended_within(HAND_BACK_S)
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.gather(self._ending, return_exceptions=True)
        await self._heart.stop()
        if self._turns is not None:
            self._turns.close()

    def _held(self) -> list[Held]:
        return [held for claims in self._claims for held in claims.held]

    async def _ended_within(self, limit_s: float) -> None:
        tasks = list(chain.from_iterable(claims.held.values() for claims in self._claims))
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def hurry(self) -> None:
        """Cuts the drain of `stop` short: what runs is handed back now."""
        self._hurry.set()

    async def _ends(self) -> None:
        """Stops what has no lease any more. Not a part of the heartbeats: a store that hangs answers none of them."""
        while True:
            await asyncio.sleep(NOTICE_MS / 2_000)
            for one in self._held():
                if one.over and not one.lost:
                    log.warning("run %s: its lease runs out, and no heartbeat was answered", one.leased.run.id)
                    one.lose()


__all__ = ["BROKEN_HANDLER_MS", "HAND_BACK_S", "Handler", "Worker", "worker_name"]

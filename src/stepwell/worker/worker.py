"""The worker: slots, claims, heartbeats, drain. What a task means is its handler's business."""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from stepwell.engine.clock import steady_s
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, StepwellError
from stepwell.worker.held import NOTICE_MS, Held, LeaseLost

log = logging.getLogger("stepwell.worker")
Handler = Callable[[Held], Awaitable[None]]
LONGEST_PAUSE_S = 5.0
#: How long the store gets to take back what this worker holds at its end.
HAND_BACK_S = 5.0
#: How long a handler that fails in an unforeseen way keeps its task from being tried again.
BROKEN_HANDLER_MS = 5_000


def worker_name() -> str:
    """New for each process, so that nobody mistakes a restarted worker for a live one."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"[-128:]


class Worker:
    """Runs up to `slots` tasks at once on the caller's event loop.

    `handlers` by task kind. `requires` says what this worker has, asked anew at each claim; None takes everything.
    `via` says how it runs its tasks, for the record.
    """

    def __init__(
        self,
        engine: Engine,
        handlers: Mapping[str, Handler],
        *,
        slots: int = 4,
        requires: Callable[[], tuple[str, ...] | None] = lambda: None,
        pools: Sequence[str] = (),
        name: str | None = None,
        via: str = "",
    ) -> None:
        if not 1 <= slots <= 10_000:
            raise Invalid(f"slots must be from 1 to 10,000, not {slots}", hint="Give the worker at least one slot.")
        self.name = name or worker_name()
        self._engine, self._handlers, self._slots = engine, handlers, slots
        self._requires, self._pools, self._via = requires, tuple(pools), via
        self._held: dict[Held, asyncio.Task[None]] = {}
        self._draining = False
        self._unanswered: c.Claim | None = None  # sent again as it is: whatever it leased is in its answer
        self._freed, self._hurry = asyncio.Event(), asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._away: str | None = None

    @property
    def slots(self) -> int:
        """How many tasks it runs at once."""
        return self._slots

    @property
    def trouble(self) -> str | None:
        """Why it claims nothing now; None when all is well."""
        if self._draining:
            return "it is being stopped"
        if not self._loops or any(loop.done() for loop in self._loops):
            return "it does not run"
        return self._away

    @property
    def busy(self) -> int:
        """How many tasks are under way."""
        return len(self._held)

    def start(self) -> None:
        self._loops = [
            asyncio.create_task(self._claims(), name="stepwell-claims"),
            asyncio.create_task(self._beats(), name="stepwell-beats"),
            asyncio.create_task(self._ends(), name="stepwell-ends"),
        ]

    async def stop(self, *, drain_s: float = 30.0) -> None:
        """Claims nothing more; lets what runs end within `drain_s`; stops and hands back the rest.

        Where the store is away and nothing can be handed back, the leases are left to run out.
        """
        self._draining = True
        self._freed.set()
        if self._loops:
            await asyncio.wait(self._loops[:1])  # a claim under way is answered first, else nobody has its leases
        if self._held:
            hurry = asyncio.ensure_future(self._hurry.wait())
            done = asyncio.ensure_future(asyncio.wait(list(self._held.values())))
            await asyncio.wait((hurry, done), timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            done.cancel()
        for held in self._held:
            held.hand_back()
        await self._ended_within(self._engine.settings.kill_grace_ms / 1_000 + HAND_BACK_S)
        for held in self._held:
            log.warning("run %s cannot be handed back; its lease will run out", held.leased.run.id)
            held.lose()
        await self._ended_within(HAND_BACK_S)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _ended_within(self, limit_s: float) -> None:
        if self._held:
            await asyncio.wait(list(self._held.values()), timeout=limit_s)

    def hurry(self) -> None:
        """Cuts the drain of `stop` short: what runs is handed back now."""
        self._hurry.set()

    # ── claiming ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _claims(self) -> None:
        hint = self._engine.ready_hint()
        pause_s = 0.05
        try:
            while not self._draining:
                self._freed.clear()
                hint.clear()
                try:
                    more = await self._claim()
                    pause_s, self._away = 0.05, None
                except Exception as away:
                    log.warning("cannot claim: %s", away)
                    self._away = f"it cannot claim: {away}"
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s * (0.5 + random.random())):  # noqa: S311 - no secret
                            await self._freed.wait()
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                    continue
                if not more:
                    await self._wait(hint)
        finally:
            self._engine.drop_hint(hint)

    async def _claim(self) -> bool:
        """Claims for the free slots; answers whether there may be more right now."""
        free = self._slots - len(self._held)
        requires = self._requires()
        if free <= 0 or requires == ():
            return False
        if self._unanswered is None:
            self._unanswered = c.Claim(
                worker=self.name,
                request=self._engine.secret(),
                pools=self._pools,
                requires=requires,
                limit=min(free, self._engine.settings.claim_limit),
                lease_ms=self._engine.settings.lease_ms,
                via=self._via,
            )
        asked_at = steady_s()
        claimed = await self._engine.submit(self._unanswered)
        self._unanswered = None
        for leased in claimed.tasks:
            held = Held(self._engine, leased, asked_at)
            task = asyncio.create_task(self._run(held), name=f"stepwell-{leased.run.id}")
            self._held[held] = task
            task.add_done_callback(partial(self._free, held))
        return claimed.more and len(self._held) < self._slots

    def _free(self, held: Held, _: asyncio.Task[None]) -> None:
        self._held.pop(held, None)
        self._freed.set()

    async def _wait(self, hint: asyncio.Event) -> None:
        """Until a slot is free or something may be ready; a bounded poll in any case."""
        full = len(self._held) >= self._slots
        event = self._freed if full else hint
        waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._freed.wait())}
        await asyncio.wait(waits, timeout=self._engine.settings.poll_ms / 1_000, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, held: Held) -> None:
        leased = held.leased
        handler = self._handlers.get(leased.kind)
        try:
            if self._draining:
                await held.release()
            elif handler is None:
                log.error("task %s of run %s: no handler for kind %s", leased.lease.k, leased.run.id, leased.kind)
                await held.release(BROKEN_HANDLER_MS, broken=True)
            else:
                await handler(held)
        except LeaseLost as lost:
            log.warning("run %s: %s", leased.run.id, lost)
        except StepwellError:
            log.exception("run %s: a write was refused", leased.run.id)
            await self._let_go(held)
        except Exception:
            log.exception("run %s: its handler failed", leased.run.id)
            await self._let_go(held)

    async def _let_go(self, held: Held) -> None:
        with contextlib.suppress(StepwellError, LeaseLost):
            await held.release(BROKEN_HANDLER_MS, broken=True)

    # ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _beats(self) -> None:
        """One Sync for all leases, as often as a cancel should be heard of; never later than a third of the lease."""
        settings = self._engine.settings
        every_s = min(settings.poll_ms, settings.beat_ms) / 1_000
        while True:
            await asyncio.sleep(every_s)
            held = [one for one in self._held if not one.lost]
            if not held:
                continue
            try:
                await self._beat(held)
            except Exception as error:
                log.warning("no heartbeat: %s", error)

    async def _beat(self, held: list[Held]) -> None:
        beats = tuple(c.Beat(one.lease, one.leased.seen) for one in held)
        asked_at = steady_s()
        answer = await self._engine.submit(c.Sync(self.name, beats, self._engine.settings.lease_ms))
        for one, synced in zip(held, answer.tasks, strict=True):
            if synced.error is not None:
                one.lose()
                continue
            one.extended(asked_at + (synced.lease_until - answer.now) / 1_000)
            if synced.cancel:
                one.ask_to_cancel()

    async def _ends(self) -> None:
        """Stops what has no lease any more. Not a part of the heartbeats: a store that hangs answers none of them."""
        while True:
            await asyncio.sleep(NOTICE_MS / 2_000)
            for one in self._held:
                if one.over and not one.lost:
                    log.warning("run %s: its lease runs out, and no heartbeat was answered", one.leased.run.id)
                    one.lose()

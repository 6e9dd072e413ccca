"""Claims: takes what is ready for some kinds of tasks, up to a bound of its own, and runs each under its handler."""

import asyncio
import contextlib
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import structs

from stepwell.engine.clock import steady_s
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, StepwellError
from stepwell.worker.heart import Heart
from stepwell.worker.held import Held, LeaseLost

log = logging.getLogger("stepwell.worker")
Handler = Callable[[Held], Awaitable[None]]
Requires = Callable[[], tuple[str, ...] | None]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
#: How long a handler that fails in an unforeseen way keeps its task from being tried again.
BROKEN_HANDLER_MS = 5_000


class Claims:
    """Runs up to `limit` tasks at once; what only waits (`Held.rest`) does not count.

    `requires` says what there are handlers for, asked anew at each claim; None takes everything, () nothing.
    """

    def __init__(
        self,
        engine: Engine,
        heart: Heart,
        handlers: Mapping[str, Handler],
        *,
        worker: str,
        limit: int,
        requires: Requires,
        pools: Sequence[str] = (),
        via: str = "",
        what: str = "slots",
    ) -> None:
        if not 1 <= limit <= 10_000:
            hint = "Give the worker at least one slot." if what == "slots" else "Let it run at least one workflow."
            raise Invalid(f"{what} must be from 1 to 10,000, not {limit}", hint=hint)
        self.limit, self.held = limit, dict[Held, asyncio.Task[None]]()
        self._engine, self._heart, self._handlers = engine, heart, handlers
        self._worker, self._requires, self._pools, self._via = worker, requires, tuple(pools), via
        self._waiting = 0
        self._draining = False
        self._coming: set[asyncio.Future[c.Started]] = set()  # starts that may come back leased
        self._context = contextvars.copy_context()  # a run does not live in the context of whoever started it
        self._unanswered: c.Claim | None = None  # sent again as it is: whatever it leased is in its answer
        self._freed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.away: str | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._claims(), name="stepwell-claims")

    @property
    def runs(self) -> bool:
        """Whether it claims."""
        return self._loop is not None and not self._loop.done()

    @property
    def busy(self) -> int:
        """How many tasks have something to do."""
        return len(self.held) - self._waiting

    async def stop(self) -> None:
        """Claims nothing more. A claim under way is answered first, else nobody has its leases."""
        self._draining = True
        self._freed.set()
        under_way: set[asyncio.Future[Any]] = {*self._coming}
        if self._loop is not None:
            under_way.add(self._loop)
        if under_way:
            await asyncio.wait(under_way)

    def starts(self, command: c.StartRun) -> Awaitable[c.Started]:
        """Sends a start. A run that would be claimed here anyway is leased in the same commit, and begins at once."""
        if not self._would_claim(command):
            return self._engine.submit(command)
        mine = c.ClaimFor(self._worker, self._engine.settings.lease_ms, self._engine.secret())
        asked_at = steady_s()
        answer = asyncio.ensure_future(self._engine.submit(structs.replace(command, claim_for=mine)))
        self._coming.add(answer)
        answer.add_done_callback(partial(self._started, asked_at), context=self._context)
        return asyncio.shield(answer)  # whoever gives up waiting leaves a run that is leased, and has to run

    def _would_claim(self, command: c.StartRun) -> bool:
        requires = self._requires()
        return (
            self.runs
            and not self._draining
            and self.busy + len(self._coming) < self.limit
            and (not self._pools or command.pool in self._pools)
            and (requires is None or command.requires in requires)
        )

    def _started(self, asked_at: float, answer: asyncio.Future[c.Started]) -> None:
        self._coming.discard(answer)
        if not answer.cancelled() and answer.exception() is None and (leased := answer.result().claim) is not None:
            self._begin(Held(self._engine, leased, asked_at))

    async def _claims(self) -> None:
        hint = self._engine.ready_hint()
        pause_s = FIRST_PAUSE_S
        try:
            while not self._draining:
                self._freed.clear()
                hint.clear()
                try:
                    more = await self._claim()
                    pause_s, self.away = FIRST_PAUSE_S, None
                except Exception as away:
                    log.warning("cannot claim: %s", away)
                    self.away = f"it cannot claim: {away}"
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
        """Claims for what is free; answers whether there may be more right now."""
        free = self.limit - self.busy
        requires = self._requires()
        if free <= 0 or requires == ():
            return False
        if self._unanswered is None:
            self._unanswered = c.Claim(
                worker=self._worker,
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
            self._begin(Held(self._engine, leased, asked_at))
        return claimed.more and self.busy < self.limit

    def _begin(self, held: Held) -> None:
        task = asyncio.create_task(self._run(held), name=f"stepwell-{held.leased.run.id}")
        self.held[held], held.on_waits = task, self._waits
        self._heart.add(held)
        task.add_done_callback(partial(self._ended, held))

    def _waits(self, waits: bool) -> None:
        if waits:
            self._less()
        self._waiting += 1 if waits else -1

    def _ended(self, held: Held, _: asyncio.Task[None]) -> None:
        self._heart.drop(held)
        held.rest(False)
        self._less()
        del self.held[held]

    def _less(self) -> None:
        """There is about to be one less. That is news only where there was no room: else nothing more was ready."""
        if self.busy >= self.limit:
            self._freed.set()

    async def _wait(self, hint: asyncio.Event) -> None:
        """Until a slot is free or something may be ready; a bounded poll in any case."""
        event = self._freed if self.busy >= self.limit else hint
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
            elif held.over:  # the loop was blocked for longer than the lease, after the claim
                held.lose()
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

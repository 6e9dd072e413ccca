"""Turns as tasks: hosts the body of a workflow while it is leased (source: KERNEL, what a worker does when refused).

`Turn` knows what to say; here it is said, as cheaply as can be: a hosted run is itself what the lane answers, so that a
recorded step costs no future and no task but its own.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from stepwell.engine.committed import Wake
from stepwell.engine.engine import Engine
from stepwell.flows.workflows import event_input, needs_workflow
from stepwell.functions.define import Pool, Retry
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.errors import (
    Ended,
    Outdated,
    OutOfStep,
    Stale,
    StepwellError,
    Unavailable,
    Unknown,
    UnknownFunction,
)
from stepwell.model.rows import Entry
from stepwell.worker.attempt import Attempt
from stepwell.worker.claims import BROKEN_HANDLER_MS
from stepwell.worker.heart import LEASES_PER_COMMAND, Asked, tell
from stepwell.worker.held import FIRST_PAUSE_S, LONGEST_PAUSE_S, Held
from stepwell.worker.inline import Inline, Outcome
from stepwell.worker.residents import Alarms, Clock, Residents
from stepwell.workflow import ambient
from stepwell.workflow.context import Facts, no_pool
from stepwell.workflow.instance import Instance
from stepwell.workflow.loop import WorkflowLoop
from stepwell.workflow.ops import TimerOp
from stepwell.workflow.turn import Failed, Turn, Work
from stepwell.workflow.versions import code_digest

log = logging.getLogger("stepwell.worker")
Logger = Callable[[str, Instance], Any]
#: How often a mutation that sends an event is called again since the flows changed, with a pause before each.
MATCHES = 20


class TurnHandler:
    """Handles tasks of kind turn. `logger` makes the log of a body; `retry` is the app's policy."""

    def __init__(
        self, engine: Engine, registry: Registry, inline: Inline, *, logger: Logger, retry: Retry | None = None
    ) -> None:
        self.engine, self.inline, self.clock = engine, inline, Clock()
        self.residents = Residents(engine.settings.linger_ms, engine.settings.resident_runs)
        self.alarms = Alarms(self.clock)
        self.environment = ambient.install(WorkflowLoop)
        self._registry, self._logger, self._retry = registry, logger, retry
        self._counted, self._needs = 0, tuple[str, ...]()
        self._prepared: set[Any] = set()
        self.code = code_digest(registry)
        self._curious: dict[Held, None] = {}
        #: Is told of the pools that calls name, before those calls are submitted.
        self.use_pool: Callable[[Pool, str], None] = no_pool

    def requires(self) -> tuple[str, ...]:
        """The workflows that are here."""
        if len(self._registry) != self._counted:  # asked for at each claim
            self._counted = len(self._registry)
            self._needs = tuple(dict.fromkeys(needs_workflow(one.path) for one in self._registry.of("workflow")))
        return self._needs

    def drain(self) -> None:
        """Keeps nothing that only waits, from now on."""
        self.residents.drain()

    def close(self) -> None:
        """Ends what watches over the bodies; nothing is hosted any more."""
        self.residents.close()
        self.alarms.close()
        self.environment.close()

    def told_time(self, now: int, at: float) -> None:
        """The store's clock said `now` (ms) before this machine's steady clock said `at` (s)."""
        self.clock.tell(now, at)
        self.alarms.look()

    async def __call__(self, held: Held) -> None:
        """Hosts one run until it is parked, has ended, or is somebody else's."""
        self.clock.tell(held.leased.now)
        try:
            turn = self._turn(held.leased)
        except (Unknown, UnknownFunction) as unknown:
            log.warning("run %s cannot go on here: %s %s", held.leased.run.id, unknown.message, unknown.hint)
            await held.release(BROKEN_HANDLER_MS)
            return
        hosted = Hosted(self, held, turn)
        try:
            hosted.begin()
            await hosted.over
        finally:
            hosted.close()
        if hosted.broken and not hosted.writes:  # a number that is under way is no other write's: the lease runs out
            await held.release(BROKEN_HANDLER_MS, broken=True)
        elif held.handing_back and turn.state == "lost" and not held.lost:
            await held.release()

    def _turn(self, leased: c.Leased) -> Turn:
        run = leased.run
        workflow = self._registry.workflow(run.name, run.version)
        if workflow not in self._prepared:
            self._prepared.add(workflow)
            self.environment.prepare(workflow.fn)
        of_run = (run.id, run.name, run.version, run.generation, leased.attempt)
        facts = Facts(*of_run, self._retry, self.code, run.scope, self.use_pool)
        given = None if leased.event is None else partial(event_input, leased.event, workflow.signature)
        return Turn(leased, workflow, facts=facts, logger=self._logger, given=given)

    def ask_news(self, held: Held) -> None:
        """Others wrote to its journal: asks what, together with all that are told in the same moment."""
        if not self._curious:
            asyncio.get_running_loop().call_soon(self._ask)
        self._curious[held] = None

    def _ask(self) -> None:
        curious, self._curious = [held for held in self._curious if not held.lost], {}
        for start in range(0, len(curious), LEASES_PER_COMMAND):
            news = _News(Asked(curious[start : start + LEASES_PER_COMMAND]), self.clock)
            command = news.asked.command("news", self.engine.settings.lease_ms)
            try:
                self.engine.lanes.submit(command, news, asyncio.get_running_loop())
            except Unavailable as away:
                log.debug("the next heartbeat brings the news: %s", away)


class _News:
    """Waits for the answer of one `Sync` beside the heartbeats."""

    def __init__(self, asked: Asked, clock: Clock) -> None:
        self.asked, self._clock = asked, clock

    def done(self) -> bool:
        return False

    def set_result(self, answer: c.Beats, /) -> None:
        self._clock.tell(answer.now)
        tell(self.asked.told(answer))

    def set_exception(self, error: BaseException, /) -> None:
        log.debug("the next heartbeat brings the news: %s", error)


class Hosted:
    """One run in memory. It is the answer that it gives the lane: one write is under way at a time.

    `over` is set when there is nothing more to do under this lease. `broken`: it has to be given back as it is.
    """

    def __init__(self, handler: TurnHandler, held: Held, turn: Turn) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.broken = False
        self._handler, self._held, self._turn = handler, held, turn
        self._loop = asyncio.get_running_loop()
        self._submit = handler.engine.lanes.submit
        self._running: dict[str, Attempt] = {}
        self._matched: set[str] = set()
        self._command: Any = None
        self._woken = 0
        self._alarmed = False
        self._pause_s, self._outdated = FIRST_PAUSE_S, 0
        self._again: asyncio.TimerHandle | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        held = self._held
        held.on_told, held.on_news = self._told, self._news
        instance, around = self._turn.instance, self._handler.environment
        instance.pump_started = partial(around.pump_started, self._turn.workflow.path, held.leased.run.id)
        instance.pump_ended = around.pump_ended
        instance.on_violation = self._violated
        self._handler.engine.listen(held.leased.run.no, self._touched)
        self._guarded(self._begin)

    def _violated(self) -> None:
        """Another thread did what a body must not do."""
        self._loop.call_soon_threadsafe(self.ring)

    def _begin(self) -> None:
        self._turn.begin()
        self._go()

    def close(self) -> None:
        """Takes it out of memory."""
        self._end()
        self._held.hears_nothing()
        self._turn.close()

    @property
    def writes(self) -> bool:
        """Whether the answer to a write is still to come."""
        return self._command is not None

    def _end(self) -> None:
        """Nothing more is said. What runs here is told to stop."""
        if not self.over.done():
            self.over.set_result(None)
        if self._again is not None:
            self._again.cancel()
        self._handler.engine.unlisten(self._held.leased.run.no, self._touched)
        self._handler.alarms.set(self, None)
        self._handler.residents.discard(self)
        for attempt in self._running.values():
            attempt.abandon()
        self._running.clear()

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """What goes wrong in one run is no other's business: the lane answers many in one go."""
        if self.over.done():
            return
        try:
            act(*args)
        except KeyboardInterrupt as interrupt:  # a user's, or the terminal's: nothing of it is written down
            self._end()
            self._loop.call_soon(_reraise, interrupt)
        except BaseException:
            log.exception("run %s: its host failed", self._held.leased.run.id)
            self.broken = True
            self._end()

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────

    def done(self) -> bool:
        return self.over.done()

    def set_result(self, reply: Any, /) -> None:
        """The kernel's answer to the last command."""
        self._guarded(self._answered, reply)

    def _answered(self, reply: Any) -> None:
        self._held.n, self._command, self._pause_s, self._outdated = self._command.n, None, FIRST_PAUSE_S, 0
        now = getattr(reply, "now", None)
        if now is not None:
            self._handler.clock.tell(now)
        self._turn.answered(reply)
        self._held.seen = self._turn.seen
        self._go()

    def set_exception(self, error: BaseException, /) -> None:
        """The kernel's refusal, or that it cannot be asked."""
        self._guarded(self._refused, error)

    def _refused(self, error: BaseException) -> None:
        if isinstance(error, Unavailable) or self._is_matched_soon(error):
            self._repeat()
        elif isinstance(error, Stale | Ended | Unknown):
            self._held.lose()
        elif isinstance(error, OutOfStep):
            self._held.n, self._command = error.fields.get("last", self._held.n), None
            raise error
        else:
            self._command = None
            if not isinstance(error, StepwellError):
                raise error
            self._turn.refused(error)
            self._held.seen = self._turn.seen
            self._go()

    def _is_matched_soon(self, error: BaseException) -> bool:
        """Whether a mutation sent an event on flows that have changed: whoever has the flows looks at them now."""
        if not isinstance(error, Outdated) or not isinstance(self._command, c.Mutate):
            return False
        self._outdated += 1
        return self._outdated <= MATCHES

    def _repeat(self) -> None:
        """The same command again, in a while: it is refused or done, never guessed. Until the lease is over."""
        if self._held.over or self._held.lost:
            self._held.lose()
            return
        pause_s = self._pause_s * (0.5 + random.random())  # noqa: S311 - spreads retries, no secret
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._again = self._loop.call_later(pause_s, self._guarded, self._write)

    def _news(self, entries: list[Entry]) -> None:
        """What others wrote, from a heartbeat or asked for."""
        self._guarded(self._heard, entries)

    def _heard(self, entries: list[Entry]) -> None:
        if self._command is None:  # else its answer brings them
            self._turn.heard(entries)
            self._held.seen = self._turn.seen
            self._go()

    def _touched(self, wake: Wake) -> None:
        """A commit of this process wrote to the run: what it wrote is heard now, if nothing before it is missing.

        And if the run is still ours: what goes on without its lease would do what a pause forbids, or others do again.
        """
        self._woken = max(self._woken, wake.seq)
        if self._command is not None or wake.seq <= self._held.seen or self.over.done():
            return
        if wake.entries and wake.after <= self._held.seen and wake.epoch == self._held.lease.epoch:
            self._guarded(self._heard, wake.entries)
        else:
            self._handler.ask_news(self._held)

    def ring(self) -> None:
        """A timer, or the retry of a step, is due."""
        self._guarded(self._go)

    def park(self) -> None:
        """It has waited long enough here."""
        self._guarded(self._park)

    def _park(self) -> None:
        if self._command is None and self._turn.idle:
            self._send(self._turn.park(self._handler.clock.now_ms()))
        else:
            self._go()

    def _told(self) -> None:
        """The lease is lost, or the worker shuts down."""
        if self._held.lost or (self._held.handing_back and self._command is None):
            self._end()

    def _worked(self, key: str, outcome: Outcome) -> None:
        self._running.pop(key, None)
        self._guarded(self._ended, key, outcome)

    def _ended(self, key: str, outcome: Outcome) -> None:
        if isinstance(outcome, Failed) and isinstance(outcome.error, KeyboardInterrupt):
            self._end()  # a step that somebody interrupted at the terminal has not failed: it runs again
            return
        now = self._handler.clock.now_ms()
        self._turn.worked(key, outcome, now)
        self._go(now)

    # ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────

    def _go(self, now: int | None = None) -> None:
        """Says and begins what there is to say and to begin; then it waits."""
        turn, held = self._turn, self._held
        command = None
        if not held.handing_back or turn.has_results:
            command = turn.next(self._handler.clock.now_ms() if now is None else now)
        if command is not None:
            if held.waits:
                self._resume()
            self._send(command)
        work = [] if held.handing_back else turn.take_work()
        if work and held.over:  # this process stood still, and what is to begin here may run elsewhere
            held.lose()
            return
        for one in work:
            self._work(one)
        while turn.dropped:
            attempt = self._running.pop(turn.dropped.pop(), None)
            if attempt is not None:
                attempt.stop()
        if turn.state != "open" or (held.handing_back and self._command is None):
            self._end()
        elif self._command is None:
            self._wait()

    def _work(self, work: Work) -> None:
        again = work.kind == "match" and work.key in self._matched
        if work.kind == "match":
            self._matched.add(work.key)
        self._running[work.key] = self._handler.inline.run(self._held.leased.run, work, again, self._worked)

    def _wait(self) -> None:
        turn, handler = self._turn, self._handler
        due = turn.due
        if due is not None or self._alarmed:
            self._alarmed = due is not None
            handler.alarms.set(self, due)
        if self._woken > self._held.seen:
            handler.ask_news(self._held)
        if not turn.idle:
            if self._held.waits:
                self._resume()
            return
        self._held.rest(True)
        linger_s = handler.residents.linger_s
        if linger_s <= 0 or (due is not None and due - handler.clock.now_ms() > linger_s * 1_000 and only_timers(turn)):
            self._park()
        else:
            handler.residents.add(self)

    def _resume(self) -> None:
        """It has something to do again."""
        self._held.rest(False)
        self._handler.residents.discard(self)

    def _send(self, command: Any) -> None:
        self._command = command
        if command is not None:
            self._write()

    def _write(self) -> None:
        self._again = None
        try:
            self._submit(self._command, self, self._loop)
        except Unavailable:
            self._repeat()


def only_timers(turn: Turn) -> bool:
    """Whether nothing but time wakes a run."""
    instance = turn.instance
    return all(isinstance(op, TimerOp) for op in instance.pending.values()) and not any(
        not waiter.done() for box in instance.inboxes.values() for waiter in box.waiters
    )


def _reraise(error: BaseException) -> None:
    raise error

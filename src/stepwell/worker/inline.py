"""What a workflow runs here: its inline steps, its queries, and the matching of its events (source: API, rule 7)."""

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from stepwell.engine.clock import steady_s
from stepwell.functions.errors import StepTimeout
from stepwell.model import commands as c
from stepwell.model.errors import Internal, StepwellError, Unavailable
from stepwell.model.rows import Run
from stepwell.worker.attempt import Attempt, Stopped, TimedOut, is_async
from stepwell.worker.calling import Calling
from stepwell.worker.held import FIRST_PAUSE_S, LONGEST_PAUSE_S
from stepwell.worker.threads import Threads
from stepwell.workflow.context import CURRENT_STEP
from stepwell.workflow.turn import Done, Failed, Matched, Work

log = logging.getLogger("stepwell.worker")

T = TypeVar("T")
#: How often it is said that what asks the same function still waits for the store.
SAID_EVERY_S = 60.0
#: Matches an event that the step of a run sends, on the present flows: (run, key, event, whether they have changed).
Match = Callable[[Run, str, Any, bool], Awaitable[c.Emission]]
Outcome = Done | Failed | Matched


async def no_flows(run: Run, key: str, event: Any, changed: bool) -> c.Emission:
    """Matches nothing, where there are no flows."""
    raise Internal("this worker cannot match events", hint="Open it with the flows of its app.")


class Inline:
    """Runs `Work` on the event loop or on threads. `grace_s`: how long what is to stop may go on."""

    def __init__(self, threads: Threads, calling: Calling, match: Match = no_flows, *, grace_s: float = 5.0) -> None:
        self._threads, self._calling, self._match, self._grace_s = threads, calling, match, grace_s
        self._context = contextvars.copy_context()
        self._said_at: dict[str, float] = {}  # by the path of the query; at most as many as an app has

    def run(self, run: Run, work: Work, again: bool, worked: Callable[[str, Outcome], None]) -> Attempt:
        """Begins it, and calls `worked` with its key and outcome, unless it was told to stop.

        `again`: an event is matched once more, since the flows have changed.
        """
        context = self._context.copy()
        context.run(CURRENT_STEP.set, work.key)
        call, blocking = self._call(run, work, again)
        return Attempt(
            call,
            partial(_ended, work, worked),
            loop=asyncio.get_running_loop(),
            threads=self._threads if blocking else None,
            context=context,
            limit_ms=work.timeout_ms,
            grace_s=self._grace_s,
        )

    def _call(self, run: Run, work: Work, again: bool) -> tuple[Callable[[], Any], bool]:
        ask: Callable[[], Awaitable[Any]]
        if work.kind == "match":
            ask = partial(self._match, run, work.key, work.args[0], again)
        elif work.kind == "query":
            ask = partial(self._calling.call, work.fn, work.args, work.kwargs, scope=run.scope, by=run.id)
        else:
            return partial(work.fn, *work.args, **work.kwargs), not is_async(work.fn)
        return partial(self._once_there, run, work, ask), False

    async def _once_there(self, run: Run, work: Work, ask: Callable[[], Awaitable[T]]) -> T:
        """A store that is away is no outcome of an event or a query: asked until it answers, or the lease is over."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except Unavailable as away:
                self._say(run, work, away)
                await asyncio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - spreads retries, no secret
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _say(self, run: Run, work: Work, away: Unavailable) -> None:
        """Now and then, why a run does not move; not for each of a thousand that ask the same."""
        what, now = getattr(work.fn, "path", work.kind), steady_s()
        if now >= self._said_at.get(what, 0.0):
            self._said_at[what] = now + SAID_EVERY_S
            log.warning("%s of run %s is asked again until the store answers: %s", work.key, run.id, away)


def _ended(work: Work, worked: Callable[[str, Outcome], None], value: Any, error: BaseException | None) -> None:
    if isinstance(error, Stopped):
        return
    if error is None:
        worked(work.key, _done(work, value))
    elif isinstance(error, TimedOut):
        limit = f"{error.limit_ms / 1_000:g} s"
        worked(work.key, Failed(StepTimeout(f"the step took longer than {limit}")))
    else:
        worked(work.key, Failed(error))


def _done(work: Work, value: Any) -> Outcome:
    """What cannot be recorded has failed: nothing was marked as done."""
    if work.kind == "match":
        return Matched(value)
    try:
        return Done(work.signature.encode_result(value))
    except StepwellError as wrong:
        return Failed(wrong)

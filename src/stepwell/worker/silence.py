"""How long an attempt may go without a heartbeat (source: API, contexts: `ActionContext.heartbeat`).

As with its timeout, the worker that runs it keeps watch: a heartbeat costs no commit. Whether that worker lives is the
business of its leases.
"""

import asyncio

from stepwell.engine.clock import steady_s
from stepwell.worker.attempt import Attempt, Silent


class Silence:
    """Ends an attempt that was not `heard` of for `limit_ms`. The first heartbeat is due that long after its start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_ms: int, attempt: Attempt) -> None:
        self._loop, self._limit_ms, self._attempt = loop, limit_ms, attempt
        self._heard_at = steady_s()
        self._timer = loop.call_later(limit_ms / 1_000, self._look)

    def heard(self) -> None:
        """It sent a heartbeat. May be called from any thread."""
        self._heard_at = steady_s()

    def close(self) -> None:
        """The attempt has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._heard_at + self._limit_ms / 1_000 - steady_s()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._attempt.time_out(Silent(self._limit_ms))

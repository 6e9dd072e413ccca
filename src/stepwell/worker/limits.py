"""The limits of pools in the store, as the code says them: of those that functions name, and of others as they are used
(source: API, choice 22: a pool is data, given by reference)."""

import logging
from concurrent.futures import Future
from functools import partial
from typing import Any

from stepwell.engine.engine import Engine
from stepwell.functions.pools import NONE_NAMED, NamedPools, Pool, pool_row
from stepwell.functions.start_options import SCOPE
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError

log = logging.getLogger("stepwell.worker")
#: How many pools are remembered as set; past it all are set anew.
REMEMBERED = 10_000


class Limits:
    """Sets limits, and remembers which. What an operator paused stays paused."""

    def __init__(self, engine: Engine, named: NamedPools = NONE_NAMED) -> None:
        self._engine, self._named = engine, named
        self._set: dict[tuple[str, str], Pool] = {}

    async def open(self) -> None:
        """Sets those of the pools that functions name."""
        for pool in self._named:
            await self._engine.submit(_command(pool, SCOPE))
            self._set[SCOPE, pool.name] = pool

    def use(self, pool: Pool, scope: str) -> None:
        """A call or a start is to name it. What is submitted after this finds its limits: lanes keep the order."""
        key = (scope, pool.name)
        there = self._set.get(key)
        if there is pool:
            return
        held = self._named.held(pool)
        if held.limits == (None, None, None) or (there is not None and there.limits == held.limits):
            return
        if len(self._set) >= REMEMBERED:
            self._set.clear()
        self._set[key] = held
        answer: Future[Any] = Future()
        answer.add_done_callback(partial(self._answered, key))
        try:
            self._engine.lanes.submit(_command(held, scope), answer, None)
        except StepwellError as away:
            answer.set_exception(away)

    def _answered(self, key: tuple[str, str], answer: "Future[Any]") -> None:
        """On the thread of the lane."""
        error = answer.exception()
        if error is not None:
            self._set.pop(key, None)
            log.warning("the limits of pool %s are not set, until it is used again: %s", key[1], error)


def _command(pool: Pool, scope: str) -> c.SetPool:
    return c.SetPool(pool_row(pool, scope), limits_only=True)

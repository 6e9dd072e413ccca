"""The open waits and streams of a server: so many at once, each for a bounded time, all ended when the server ends."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from stepwell.engine.engine import Engine
from stepwell.model.errors import Invalid, Limited

#: `wait=true`, and the longest wait that can be asked for; seconds.
WAIT_S, MAX_WAIT_S = 30.0, 300.0
_HINT = f"true is {WAIT_S:g} s; or a number of seconds, at most {MAX_WAIT_S:g}."


def wait_of_query(query: Mapping[str, str]) -> float:
    """Seconds that `?wait=` asks for; 0: not at all. `1` is `true` (source: seed)."""
    text = query.get("wait", "")
    if text in ("", "0", "false"):
        return 0.0
    if text in ("1", "true"):
        return WAIT_S
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text) or float(text) > MAX_WAIT_S:
        raise Invalid(f"wait must be true or seconds, not {text!r:.80}", hint=_HINT, field="wait")
    return float(text)


def wait_of_body(fields: Mapping[str, Any]) -> float:
    """Seconds that the key `wait` of a body asks for; 0: not at all."""
    value = fields.get("wait")
    if value is None or isinstance(value, bool):
        return WAIT_S if value else 0.0
    if not isinstance(value, int | float) or not 0 <= value <= MAX_WAIT_S:
        raise Invalid("wait must be true or seconds", hint=_HINT, field="wait")
    return float(value)


class Waits:
    """Counts who waits. `closing` is set once the server ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.open = 0
        self.closing = asyncio.Event()

    def close(self) -> None:
        """Ends all of them: who waits is answered with what there is now."""
        self.closing.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Takes a place; `Limited` when there is none."""
        if self.open >= self._limit:
            hint = "Try again after a moment, or ask without `wait` and look again later."
            raise Limited(f"{self.open} requests wait already", hint=hint, limit=self._limit)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    async def heard(self, event: asyncio.Event, within_s: float) -> None:
        """Until the event is set, the server ends, or the time is over."""
        tasks = [asyncio.ensure_future(one.wait()) for one in (event, self.closing)]
        try:
            await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def until_ended(self, engine: Engine, receive: Receive, numbers: Sequence[int], wait_s: float) -> None:
        """Until runs have ended, the time is over, or the server ends; `ClientDisconnect` when nobody listens."""
        gone = asyncio.ensure_future(_gone(receive))
        tasks = [asyncio.ensure_future(_all_ended(engine, numbers)), gone, asyncio.ensure_future(self.closing.wait())]
        try:
            done, _ = await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if gone in done:
                raise ClientDisconnect
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _all_ended(engine: Engine, numbers: Sequence[int]) -> bool:
    for number in numbers:
        await engine.wait_end(number)
    return True


async def _gone(receive: Receive) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True

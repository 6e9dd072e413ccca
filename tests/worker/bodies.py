"""Bodies and steps that tests of hosts have in common, and settings under which they stay in memory."""

import threading
import time
from typing import Any

import msgspec

from stepwell.workflow.context import Context

from .hall import QUICK, Hall

NEVER_PARKS = msgspec.structs.replace(QUICK, linger_ms=60_000)
#: A poll that is no help, too.
SLOW = msgspec.structs.replace(NEVER_PARKS, poll_ms=5_000)


async def note(text: str = "x") -> str:
    return text


async def steps(ctx: Context, n: int) -> int:
    for _ in range(n):
        await ctx.step(note)
    return n


async def waits(ctx: Context) -> Any:
    return await ctx.wait_for_signal("go")


async def called(it: Hall, fn: Any, *args: Any, call: dict[str, Any] | None = None, **options: Any) -> str:
    """A run that calls the action `fn` and returns its result; `call`: options of the call."""
    action = it.action(fn, **options)

    async def flow(ctx: Context) -> Any:
        return msgspec.to_builtins(await ctx.options(**(call or {})).call(action, *args))

    return await it.start(it.workflow(flow, name=f"flow:{fn.__name__}"))


class Crowd:
    """A step that takes 20 ms; `most`: of how many threads at once."""

    def __init__(self) -> None:
        self._lock, self._running, self.most = threading.Lock(), 0, 0

    def __call__(self) -> None:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(0.02)
        with self._lock:
            self._running -= 1

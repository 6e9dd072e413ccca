"""`ActionContext`: what an action may say and ask while it runs (source: API, contexts)."""

from collections.abc import Awaitable, Callable
from logging import LoggerAdapter
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, get_args

from msgspec import Struct

from stepwell.functions.values import decode, encode
from stepwell.model.errors import Invalid, TooLarge

if TYPE_CHECKING:  # it looks for this class in the parameters of actions
    from stepwell.functions.define import Function

P = ParamSpec("P")
R = TypeVar("R")
OutputStream = Literal["stdout", "stderr", "agent"]


class ActionHost(Struct, frozen=True):
    """What the worker does for an action: `beat` takes JSON, `say` a stream and text, `call` a function and arguments.

    `beat` and `say` may be called from any thread. `beat` raises CancelledError in a thread that is to stop.
    """

    beat: Callable[[str | None], None]
    say: Callable[[OutputStream, str], None]
    call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
    details_bytes: int


class ActionContext:
    """The optional first parameter of an action, found by its annotation.

    `attempt` counts from 1. `idempotency_key` is the same for all attempts of this call, and no other call has it.
    `last_details` is what the last heartbeat of an earlier attempt said, or None.
    """

    def __init__(
        self,
        host: ActionHost,
        *,
        run_id: str,
        attempt: int,
        idempotency_key: str,
        log: "LoggerAdapter[Any]",
        last_details: str | None,
    ) -> None:
        self._host = host
        self.run_id, self.attempt, self.idempotency_key, self.log = run_id, attempt, idempotency_key, log
        self.last_details: Any = None if last_details is None else decode(last_details, Any)

    def heartbeat(self, details: Any = None) -> None:
        """Says how far it is: the next attempt finds `details` in `last_details`. The lease is kept without it, too,
        but an attempt that says nothing for as long as the option `heartbeat` allows has failed (StepTimeout).

        In a `def` action it raises asyncio.CancelledError once the action is to stop, which nothing else can tell it.
        Raises NotJson for what is not JSON, TooLarge for more than the bound of a payload.
        """
        text = None if details is None else encode(details)
        size, limit = len((text or "").encode()), self._host.details_bytes
        if size > limit:
            what = f"the details of a heartbeat have {size:,} bytes, the limit is {limit:,}"
            raise TooLarge(what, what="details", size=size, limit=limit)
        self._host.beat(text)

    def output(self, text: str, *, kind: OutputStream = "stdout") -> None:
        """Adds to what the run says, for those who watch: in order, bounded per run, kept when the action fails."""
        if not isinstance(text, str):
            raise Invalid(f"output takes a text, not {type(text).__name__}", hint="For example ctx.output(str(value)).")
        if kind not in get_args(OutputStream):
            raise Invalid(f"no output of kind {kind!r}", hint=f"Kinds are {', '.join(get_args(OutputStream))}.")
        self._host.say(kind, text if text.isascii() else text.encode(errors="replace").decode())

    async def call(self, fn: "Function[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a query, a mutation, or another action as a part of this attempt.

        A mutation is a commit of its own: an attempt that is repeated calls it again. Only a workflow's
        `ctx.call(mutation)` happens once; here, hand on `idempotency_key`.
        """
        result: R = await self._host.call(fn, args, kwargs)
        return result

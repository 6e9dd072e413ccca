"""Actions as tasks: finds the function, runs one attempt of it, writes how it ended (source: API, contexts; KERNEL).

`async def` actions run as tasks on the event loop, `def` ones on threads. Nobody can end a thread: an attempt that is
past its timeout is left behind there, and the next one may begin beside it.
"""

import asyncio
import base64
import contextvars
import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from logging import LoggerAdapter
from typing import Any

from stepwell.engine.engine import Engine
from stepwell.functions.action_context import ActionContext, ActionHost, OutputStream
from stepwell.functions.define import Action
from stepwell.functions.errors import StepTimeout
from stepwell.functions.failures import failure_json
from stepwell.functions.registry import Registry
from stepwell.functions.retry import allowed_by, duration_ms
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, StepwellError, TooLarge, UnknownFunction
from stepwell.worker.attempt import Attempt, Silent, Stopped, TimedOut, is_async
from stepwell.worker.calling import Calling
from stepwell.worker.claims import BROKEN_HANDLER_MS
from stepwell.worker.held import Held
from stepwell.worker.output import OutputPump
from stepwell.worker.silence import Silence
from stepwell.worker.threads import Threads

log = logging.getLogger("stepwell.action")
#: How much of a failure is told where all of it is too large.
SAID_CHARS = 1_000


class ActionHandler:
    """Handles tasks of kind action."""

    def __init__(self, engine: Engine, registry: Registry, threads: Threads, calling: Calling) -> None:
        self._engine, self._registry, self._threads, self._calling = engine, registry, threads, calling
        self._counted, self._needs = 0, tuple[str, ...]()
        self._context = contextvars.copy_context()

    def requires(self) -> tuple[str, ...]:
        """The actions that are here."""
        if len(self._registry) != self._counted:  # asked for at each claim
            self._counted = len(self._registry)
            self._needs = tuple(f"function:{action.path}" for action in self._registry.of("action"))
        return self._needs

    async def __call__(self, held: Held) -> None:
        leased = held.leased
        try:
            action = self._registry.get(leased.name or "")
        except UnknownFunction as unknown:
            log.warning("run %s: %s %s", leased.run.id, unknown.message, unknown.hint)
            await held.release(BROKEN_HANDLER_MS, broken=True)
            return
        assert isinstance(action, Action), "only actions become tasks"
        try:
            arguments = action.signature.arguments(leased.args or "{}")
        except StepwellError as wrong:
            await held.fail(failure_json(wrong), retry=False)
            return
        _complete(leased, action.options)
        running = _Running(self._engine, held, action, self._calling, self._threads)
        value, error = await running.attempt(arguments, self._context.copy())
        if not held.lost:
            await self._write(held, action, value, error)

    async def _write(self, held: Held, action: Action[Any, Any], value: Any, error: BaseException | None) -> None:
        if error is None:
            await self._completed(held, action, value)
        elif isinstance(error, Stopped) and held.asked_to_cancel:
            await held.finish(c.Canceled("the action was asked to stop"))
        elif isinstance(error, KeyboardInterrupt):  # in a thread; one on the loop ends the program
            await held.release(BROKEN_HANDLER_MS, broken=True)
        elif isinstance(error, Stopped):
            await held.tell_details()
            await held.release()
        elif isinstance(error, TimedOut):
            late = StepTimeout(f"the action {error.did} {error.limit_ms / 1_000:g} s")
            await self._failed(
                held, late, retry=allowed_by(held.leased.retry, late) and not _past_deadline(held, error)
            )
        else:
            await self._failed(held, error, retry=allowed_by(held.leased.retry, error))

    async def _completed(self, held: Held, action: Action[Any, Any], value: Any) -> None:
        try:
            await held.finish(c.Completed(action.signature.encode_result(value)))
        except (TooLarge, Invalid) as refused:
            await held.fail(failure_json(refused), retry=False)
        except StepwellError as wrong:
            if wrong.code != "not_json":
                raise
            await held.fail(failure_json(wrong), retry=False)

    async def _failed(self, held: Held, error: BaseException, *, retry: bool) -> None:
        await held.tell_details()
        try:
            await held.fail(failure_json(error), retry=retry)
        except (TooLarge, Invalid):  # rather the reason without its data than neither
            short = StepwellError(f"{type(error).__name__}: {error}"[:SAID_CHARS])
            await held.fail(failure_json(short), retry=retry)


class _Running:
    """One attempt under way, and what it says meanwhile."""

    def __init__(
        self, engine: Engine, held: Held, action: Action[Any, Any], calling: Calling, threads: Threads
    ) -> None:
        self._held, self._action, self._calling, self._settings = held, action, calling, engine.settings
        self._threads, self._inner = threads, 0
        self._loop = asyncio.get_running_loop()
        self._blocking = not is_async(action.fn)
        self._pump = OutputPump(held, self._settings.output_bytes, self._settings.payload_bytes // 4)
        self._attempt: Attempt | None = None
        self._silence: Silence | None = None

    async def attempt(
        self, arguments: dict[str, Any], context: contextvars.Context
    ) -> tuple[Any, BaseException | None]:
        """Runs it; answers its value, or None and why there is none."""
        ended: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        self._attempt = attempt = Attempt(
            self._bound(self._action, arguments),
            lambda value, error: ended.set_result((value, error)),
            loop=self._loop,
            threads=self._threads if self._blocking else None,
            context=context,
            limit_ms=limit_ms(self._held.leased),
            grace_s=self._settings.kill_grace_ms / 1_000,
        )
        if self._held.leased.heartbeat_ms is not None:
            self._silence = Silence(self._loop, self._held.leased.heartbeat_ms, attempt)
        self._held.on_told = attempt.stop
        if self._held.cancel.is_set():
            attempt.stop()
        try:
            return await ended
        finally:
            if self._silence is not None:
                self._silence.close()
            await self._pump.close()

    def _bound(self, action: Action[Any, Any], arguments: dict[str, Any], within: str = "") -> Callable[[], Any]:
        context = (self._context(within),) if action.takes_context else ()
        return partial(action.fn, *context, **arguments)

    def _context(self, within: str = "") -> ActionContext:
        leased = self._held.leased
        host = ActionHost(self._beat, self._say, self._call, self._settings.payload_bytes)
        facts = {"run_id": leased.run.id, "step": leased.key, "action": leased.name, "attempt": leased.attempt}
        return ActionContext(
            host,
            run_id=leased.run.id,
            attempt=leased.attempt,
            idempotency_key=idempotency_key(leased) + within,
            log=LoggerAdapter(log, facts),
            last_details=leased.details,
        )

    def _beat(self, details: str | None) -> None:
        """Any thread. The heart takes it along; a newer one before that replaces it."""
        if self._silence is not None:
            self._silence.heard()
        if details is not None:
            self._held.details = details
        if self._blocking and (self._held.lost or (self._attempt is not None and self._attempt.stopping)):
            raise asyncio.CancelledError("the action is to stop")

    def _say(self, stream: OutputStream, text: str) -> None:
        self._pump.take(stream, text)

    async def _call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(fn, Action):
            return await self._inside(fn, args, kwargs)
        run = self._held.leased.run
        return await self._calling.call(fn, args, kwargs, scope=run.scope, by=run.id)

    async def _inside(self, action: Action[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Another action as a part of this attempt: without a task, and without a policy of its own."""
        self._inner += 1
        signature = action.signature
        call = self._bound(action, signature.arguments(signature.bind(args, kwargs)), f"-{self._inner}")
        result = await (call() if is_async(action.fn) else self._threads.call(call))
        return signature.decode_result(signature.encode_result(result))


def _complete(leased: c.Leased, options: Mapping[str, Any]) -> None:
    """A run that is one action carries no limits of an attempt: those of the action's decorator hold."""
    for name in ("timeout", "heartbeat"):
        if getattr(leased, f"{name}_ms") is None and options.get(name) is not None:
            setattr(leased, f"{name}_ms", duration_ms(options[name], name))


def limit_ms(leased: c.Leased) -> int | None:
    """How long this attempt may take: its timeout, or what is left until the deadline of all attempts."""
    left = None if leased.deadline is None else max(leased.deadline - leased.now, 0)
    limits = [limit for limit in (leased.timeout_ms, left) if limit is not None]
    return min(limits, default=None)


def _past_deadline(held: Held, error: TimedOut) -> bool:
    if isinstance(error, Silent):
        return False
    return held.leased.timeout_ms is None or error.limit_ms < held.leased.timeout_ms


def idempotency_key(leased: c.Leased) -> str:
    """The same for all attempts of one call: from the run, its generation, and the key of the step."""
    run = leased.run
    parts = "\0".join((run.scope, run.id, str(run.generation), leased.key or str(leased.lease.k)))
    return "key_" + base64.b32encode(hashlib.sha256(parts.encode()).digest()).decode().lower()[:26]

"""A mutation that is called from outside of any run: one transaction, and with a request id once."""

import hashlib

from stepwell.kernel import check
from stepwell.kernel.calls import Call
from stepwell.kernel.dedup import HOUR_MS
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Invoke, Invoked
from stepwell.model.rows import Request


def invoke(unit: Unit, command: Invoke, now: int) -> Invoked:
    """`Invoke`: the result; a repeat with the same request gets the first one. A failed call leaves nothing."""
    check.name("function", command.function)
    check.name("scope", command.scope)
    check.json(unit.settings, "args", command.args)
    key, digest = request_key(command), _digest(command)
    before = None if key is None else unit.requests.get(key)
    if before is not None:
        if before.body_hash != digest:
            raise errors.Conflict(f"request {command.request!r} came before with another call")
        return Invoked(before.reply)
    called = unit.call(Call(command.function, command.args, command.scope, by=command.by), now)
    if not called.done:
        raise errors.MutationFailed(f"mutation {command.function} failed", failure=called.text)
    if key is not None:
        expires_at = now + unit.settings.request_retention_h * HOUR_MS
        unit.requests.put(key, Request(*key, digest, called.text, expires_at))
    return Invoked(called.text)


def request_key(command: Invoke) -> tuple[str, str] | None:
    """Under which request a call is remembered."""
    if command.request is None:
        return None
    check.run_id(command.request)
    return command.scope, "invoke:" + hashlib.sha256(command.request.encode()).hexdigest()


def _digest(command: Invoke) -> str:
    return hashlib.sha256(f"{command.function}\0{command.args}".encode()).hexdigest()

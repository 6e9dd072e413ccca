"""Callbacks: the mutation that a run names for its end, called in the commit of the end (source: API, on_complete).

Where nobody knows the function, the call is a message of the run to itself, for a lane that knows it.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from stepwell.kernel import check
from stepwell.kernel.calls import Call
from stepwell.kernel.unit import Unit
from stepwell.model.entries import NULL, Body, RunCompleted, RunFailed, encode
from stepwell.model.errors import Invalid, Outdated, UnknownFunction
from stepwell.model.rows import Message, Run


class Callback(Struct, frozen=True, forbid_unknown_fields=True):
    """What `StartRun.callback` holds: a mutation, and what it is to be told besides the end."""

    function: str
    context: Raw = NULL


class Ended(Struct, omit_defaults=True):
    """What a callback is called with."""

    run_id: str
    kind: Literal["success", "failed", "canceled"]
    value: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    context: Raw = NULL


_DECODER = msgspec.json.Decoder(Callback)


def check_callback(unit: Unit, text: str | None) -> None:
    """A callback before it is stored: what cannot be called is refused, since the end of the run comes too late."""
    if text is None:
        return
    check.json(unit.settings, "callback", text)
    try:
        check.name("callback.function", _DECODER.decode(text).function)
    except msgspec.DecodeError as error:
        hint = 'Send {"function": "module:mutation", "context": ...}.'
        raise Invalid(f"the callback cannot be used: {error}", field="callback", hint=hint) from None


def call_back(unit: Unit, run: Run, body: Body, seq: int, now: int) -> Raw | None:
    """Calls a run's callback with its end, or leaves word for one who can; answers the error of a call that failed."""
    if run.callback is None:
        return None
    callback = _DECODER.decode(run.callback)
    ended = encode(_told(run, body, callback.context)).decode()
    try:
        called = unit.call(Call(callback.function, ended, run.scope, run.id, run.no, whole=True), now)
    except (UnknownFunction, Outdated):
        message = Message(0, run.scope, run.no, run.no, seq, "callback", callback.function, run.updated_at, ended)
        unit.sent.append(message)
        return None
    return None if called.done else Raw(called.text.encode())


def called_later(unit: Unit, message: Message, now: int) -> str | None:
    """Makes the call of a message; answers the error of one that failed."""
    call = Call(message.key or "", message.data, message.scope, run_no=message.from_no, whole=True)
    called = unit.call(call, now)
    return None if called.done else called.text


def _told(run: Run, body: Any, context: Raw) -> Ended:
    if isinstance(body, RunCompleted):
        return Ended(run.id, "success", value=body.result, context=context)
    if isinstance(body, RunFailed):
        return Ended(run.id, "failed", error=body.error, context=context)
    error = {"type": "RunCanceled", "message": body.reason}
    return Ended(run.id, "canceled", error=Raw(encode(error)), context=context)

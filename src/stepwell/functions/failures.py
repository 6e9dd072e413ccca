"""Failures as JSON, one shape everywhere: type, message, and where there are any data, traceback, attempts and hint.

Bounded, so that a failure can always be recorded (source: API, rules 6 and 10).
"""

import traceback
from typing import Any

import msgspec

from stepwell.functions.errors import (
    AppError,
    NonRetryable,
    RunCanceled,
    RunError,
    RunTerminated,
    StepError,
    StepTimeout,
)
from stepwell.functions.values import encode
from stepwell.model.errors import StepwellError

MAX_MESSAGE_BYTES = 8 << 10
MAX_TRACEBACK_BYTES = 8 << 10
MAX_DATA_BYTES = 64 << 10
MAX_HINT_BYTES = 2 << 10
MAX_TYPE_CHARS = 128
#: What of each fits where a payload may have 1,024 bytes, six for a character at the most.
BRIEF_CHARS = 80
#: Exceptions of a group that its message names.
NAMED_IN_GROUP = 5
_UNKNOWN = "Error"
#: What the classes say of themselves: whoever reads a failure says it, too.
_GENERIC = frozenset(
    one.default_hint
    for one in (AppError, NonRetryable, StepError, StepTimeout, RunError, RunCanceled, RunTerminated, StepwellError)
)


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is recorded of an exception."""

    type: str = _UNKNOWN
    message: str = ""
    data: Any = None
    traceback: str = ""
    attempts: int = 0
    hint: str = ""


def failure_json(error: BaseException, *, attempts: int | None = None) -> str:
    """An exception as JSON. A StepError or RunError that is raised on keeps the type and data of what it tells of."""
    known = error.attempts if isinstance(error, StepError) and attempts is None else attempts
    text, data = _data(error)
    failure = {
        "type": _type(error)[:MAX_TYPE_CHARS],
        "message": clipped(_message(error) + text, MAX_MESSAGE_BYTES),
    }
    parts = [_ENCODER.encode(failure)[:-1]]
    if data is not None:
        parts.append(b'"data":' + data.encode())
    if trace := _traceback(error):
        parts.append(b'"traceback":' + _ENCODER.encode(trace))
    if known:
        parts.append(b'"attempts":%d' % known)
    if isinstance(error, StepwellError) and (hint := _hint(error)):
        parts.append(b'"hint":' + _ENCODER.encode(hint))
    return (b",".join(parts) + b"}").decode()


def brief_json(error: BaseException) -> str:
    """As much of it as fits into the smallest bound that a payload may have."""
    message = _message(error)[:BRIEF_CHARS]
    return _ENCODER.encode({"type": _type(error)[:BRIEF_CHARS], "message": message}).decode()


def _type(error: BaseException) -> str:
    return error.type if isinstance(error, StepError | RunError) else type(error).__name__


def step_error(text: str) -> StepError:
    """The StepError, or StepTimeout, that recorded JSON tells of. What is no failure becomes the message of one."""
    failure = _read(text)
    cls = StepTimeout if failure.type == StepTimeout.__name__ else StepError
    return cls(
        failure.message,
        type=failure.type,
        data=failure.data,
        attempts=failure.attempts or 1,
        traceback=failure.traceback,
        hint=failure.hint,
    )


def run_error(text: str | None, status: str = "failed") -> RunError:
    """The RunError of a run that ended with a status: failed, canceled or terminated. A cancel may have no JSON."""
    failure = _read(text or "{}")
    told: dict[str, Any] = {"data": failure.data, "traceback": failure.traceback, "hint": failure.hint}
    if status == "failed":
        return RunError(failure.message, type=failure.type, **told)
    cls = RunTerminated if status == "terminated" else RunCanceled
    message = failure.message or f"the run was {'terminated' if status == 'terminated' else 'canceled'}"
    return cls(message, **told)


def clipped(text: str, limit: int) -> str:
    """A text of at most about `limit` bytes that can be stored: the middle goes, since the end says the most."""
    raw = text.encode(errors="backslashreplace")
    if len(raw) > limit:
        cut = f"\n... {len(raw) - limit:,} bytes left out ...\n".encode()
        raw = raw[: limit // 4] + cut + raw[-(limit - limit // 4 - len(cut)) :]
    return raw.decode(errors="ignore")


def _read(text: str) -> Failure:
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError:
        return Failure(message=clipped(text, MAX_MESSAGE_BYTES))


def _message(error: BaseException) -> str:
    try:
        message = error.message if isinstance(error, StepError | RunError) else str(error)
    except Exception as broken:
        return f"(its text cannot be had: {type(broken).__name__})"
    if isinstance(error, BaseExceptionGroup):
        named = "; ".join(f"{type(one).__name__}: {_message(one)}" for one in error.exceptions[:NAMED_IN_GROUP])
        return f"{message}: {named}"
    return message


def _hint(error: StepwellError) -> str:
    """What to do, if somebody said more than the classes do. A subclass may have forgotten to call its base."""
    hint = getattr(error, "hint", "")
    return clipped(hint, MAX_HINT_BYTES) if isinstance(hint, str) and hint not in _GENERIC else ""


def _data(error: BaseException) -> tuple[str, str | None]:
    """What to add to the message, and the JSON of the data, if it has any that can be recorded."""
    data = error.data if isinstance(error, AppError | NonRetryable | StepError | RunError) else None
    if data is None:
        return "", None
    try:
        text = encode(data)
    except NonRetryable as wrong:
        return f" (its data is left out: {wrong.message})", None
    if (size := len(text.encode())) > MAX_DATA_BYTES:
        return f" (its data is left out: {size:,} bytes, the limit is {MAX_DATA_BYTES:,})", None
    return "", text


def _traceback(error: BaseException) -> str:
    """Where it was raised, as text; what tells of a failure elsewhere brings that along in its notes."""
    if error.__traceback__ is None:
        return clipped(error.traceback, MAX_TRACEBACK_BYTES) if isinstance(error, StepError | RunError) else ""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception as broken:
        lines = [f"(no traceback: {type(broken).__name__})"]
    return clipped("".join(lines), MAX_TRACEBACK_BYTES)


#: Stateless; making one for each call costs more than encoding.
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Failure)

"""What a call says to the server and what it makes of the answer, without I/O: generators that both shells drive.

A call yields what to `Ask`, gets the `Answer` or why it was `Lost`, and returns its value or raises a `StepwellError`.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from stepwell.model.errors import (
    BY_CODE,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    Limited,
    Malformed,
    StepwellError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
)

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
MAX_TEXT_CHARS = 10_000
#: What a server says that has done nothing and may soon: too many waits; away, or a proxy before one that is.
BUSY, AWAY = frozenset((429,)), frozenset((502, 503, 504))
_BY_STATUS: dict[int, type[StepwellError]] = {
    400: Malformed, 401: Unauthorized, 403: Forbidden, 404: Unknown, 409: Conflict, 413: TooLarge, 415: Unsupported,
    422: Invalid, 429: Limited, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip


class Ask(Struct, frozen=True, kw_only=True):
    """One request. `path` is percent-encoded, below the base URL; `safe` if sending it twice is as good as once.

    `timeout_s` is all the time that it has, `pause_s` the time to wait before it.
    """

    method: str = "GET"
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    safe: bool = True
    timeout_s: float
    pause_s: float = 0.0


class Answer(Struct, frozen=True):
    """What the server said; the names of headers in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class Lost(Struct, frozen=True):
    """No answer came; `sent` if the server may have got the request all the same."""

    error: StepwellError
    sent: bool = True


Talk = Generator[Ask, Answer | Lost, T]


class Backoff(Struct, frozen=True, kw_only=True):
    """When to send again. `clock_s` is steady; `jitter` is from 0 to 1."""

    clock_s: Callable[[], float]
    jitter: Callable[[], float]
    tries: int

    def pause_s(self, failures: int, got: Answer | Lost | None = None) -> float:
        """How long to wait after so many failures in a row; longer if the server asks for it."""
        pause: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10)) * (0.5 + self.jitter() / 2)
        asked = got.headers.get("retry-after", "") if isinstance(got, Answer) else ""
        return max(pause, min(float(asked), LONGEST_PAUSE_S)) if asked.isdecimal() and len(asked) < 9 else pause


def talk(ask: Ask, backoff: Backoff, *, stubborn: bool = False) -> Talk[dict[str, Any]]:
    """Asks, again where that is safe, and answers the JSON object. `stubborn`: as often as the time allows."""
    ends, failures = backoff.clock_s() + ask.timeout_s, 0
    while True:
        got = yield ask
        if isinstance(got, Answer) and 200 <= got.status < 300:
            return read_object(got)
        error = refusal(got) if isinstance(got, Answer) else got.error
        failures += 1
        pause_s = backoff.pause_s(failures, got)
        left_s = ends - backoff.clock_s() - pause_s
        if not may_repeat(ask, got) or left_s <= 0 or (failures >= backoff.tries and not stubborn):
            raise told(ask, got, error)
        ask = msgspec.structs.replace(ask, pause_s=pause_s, timeout_s=left_s)


def may_repeat(ask: Ask, got: Answer | Lost) -> bool:
    """Whether sending it again does no harm and may help."""
    if isinstance(got, Lost):
        return isinstance(got.error, Unavailable) and (ask.safe or not got.sent)
    return got.status in BUSY or (ask.safe and got.status in AWAY)


def told(ask: Ask, got: Answer | Lost, error: StepwellError) -> StepwellError:
    """The error with the hint that its caller needs: whether the request may have been carried out."""
    if isinstance(got, Lost) and got.sent and not ask.safe:
        error.hint = "It may have been carried out: look at the run or the event before you send it again."
    return error


def refusal(answer: Answer) -> StepwellError:
    """The error of an answer that is none of success: by its `code`, or else by its status."""
    said = _object(answer.body)
    message, code, hint = (said.pop(key, None) for key in ("error", "code", "hint"))
    text = message if isinstance(message, str) and message else _plain_message(answer)
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    given = hint if isinstance(hint, str) else ""
    if kind is None:
        other = Invalid if answer.status < 500 else Internal
        kind, given = _BY_STATUS.get(answer.status, other), given or _plain_hint(answer)
    fields = {key: value for key, value in said.items() if key not in ("self", "message")}
    error = kind(text, hint=given, **fields)
    error.fields.setdefault("http_status", answer.status)
    return error


def read_object(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer."""
    try:
        value = msgspec.json.decode(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Malformed("the server did not answer with a JSON object", hint="Check base_url: is that a flow backend?")
    return value


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain_message(answer: Answer) -> str:
    return f"the server answered with {answer.status}"


def _plain_hint(answer: Answer) -> str:
    """For answers of something that is no Stepwell."""
    if 300 <= answer.status < 400:
        return f"It redirects to {answer.headers.get('location', '')!r:.200}: give the final address as base_url."
    return "" if answer.status in _BY_STATUS else "Check base_url, and look into the server's log."

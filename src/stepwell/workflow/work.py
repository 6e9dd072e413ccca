"""What a turn has its host do, and what came of it."""

from typing import Any, Literal

from msgspec import Struct

from stepwell.model import commands as c

UNSET: Any = object()


class Work(Struct, frozen=True):
    """Something that the host does. `timeout_ms` is for this attempt.

    A step: `fn` with `args` and `kwargs`. A query: `fn` is the Function. A match: the event is in `args`.
    """

    key: str
    kind: Literal["step", "query", "match"]
    fn: Any
    args: Any
    kwargs: Any
    signature: Any
    attempt: int = 1
    timeout_ms: int | None = None


class Done(Struct, frozen=True):
    """A step's result as JSON; `value` is what that JSON decodes to."""

    text: str
    value: Any = UNSET


class Failed(Struct, frozen=True):
    """A step's failure: an exception, which its retry policy looks at."""

    error: BaseException


class Matched(Struct, frozen=True):
    """What an event starts."""

    sends: c.Emission


class Known:
    """Decodes the text that was just encoded to the value at hand, and any other as usual."""

    __slots__ = ("_signature", "_text", "_value")

    def __init__(self, value: Any, text: str, signature: Any) -> None:
        self._value, self._text, self._signature = value, text, signature

    def decode_result(self, text: str) -> Any:
        return self._value if text == self._text else self._signature.decode_result(text)

"""JSON as it may enter: bounded in size, depth and numbers, so that nothing behind it has to be afraid of a value."""

import json
import math
from typing import Any, NoReturn

from msgspec import Struct

from stepwell.model.errors import Invalid, Malformed, TooLarge

MAX_DEPTH = 64
MAX_BYTES = 1024 * 1024
# What 64 bits hold, signed or unsigned: other JSON libraries, and ours, round or refuse what lies beyond.
MIN_INT, MAX_INT = -(2**63), 2**64 - 1
_MAX_INT_DIGITS = 20

# Immutable after construction, so sharing it is safe; making one per call costs more than encoding a small event.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Bounds(Struct, frozen=True):
    """Limits of one JSON value: bytes of its text, levels of nesting."""

    max_bytes: int = MAX_BYTES
    max_depth: int = MAX_DEPTH


def has_control(text: str) -> bool:
    """Whether a text has control characters (C0, DEL, C1), NUL among them."""
    return any(char < " " or "\x7f" <= char <= "\x9f" for char in text)


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, and so can be stored and sent as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_json(data: bytes | str, *, what: str, bounds: Bounds) -> Any:
    """Read JSON text (UTF-8).

    Raises `Malformed` for all that is not one JSON value, `Invalid` for one that no store can hold, `TooLarge` over a
    bound.
    """
    size = len(data) if isinstance(data, bytes) else len(data.encode(errors="surrogatepass"))
    if size > bounds.max_bytes:
        raise TooLarge(f"{what} is too large", what=what, size=size, limit=bounds.max_bytes)
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep(what, bounds) from None
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {error}", hint="Send one JSON value in UTF-8.", field=what) from None
    check_json(value, what=what, bounds=bounds)
    return value


def check_json(value: Any, *, what: str, bounds: Bounds) -> None:
    """Check a value that is already decoded. Raises `Invalid` or `TooLarge`; no recursion, no walk past a bound."""
    size, stack = 0, [(value, 0)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, dict | list) and depth >= bounds.max_depth:
            raise _too_deep(what, bounds)
        size += _check_node(node, what)
        if size > bounds.max_bytes:
            raise TooLarge(f"{what} is too large", what=what, size=size, limit=bounds.max_bytes)
        if isinstance(node, dict):
            stack.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, list):
            stack.extend((child, depth + 1) for child in node)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no escapes beyond need. `Invalid` for what is not JSON."""
    try:
        text = _CANONICAL.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(
            f"this is not JSON: {error}", hint="Use objects, arrays, texts, finite numbers, booleans and null."
        ) from None
    if not is_unicode(text):
        raise Invalid("a text has lone surrogates", hint="Send texts that are valid Unicode.")
    return text


def _check_node(node: Any, what: str) -> int:
    """Check one node without its children; the answer is the least number of bytes that it takes as text."""
    if node is None or isinstance(node, bool):
        return 1
    if isinstance(node, str):
        return _check_text(node, what)
    if isinstance(node, int):
        return _check_integer(node, what)
    if isinstance(node, float):
        return _check_float(node, what)
    if isinstance(node, dict):
        return 2 + sum(_check_key(key, what) for key in node)
    if isinstance(node, list):
        return 2 + max(len(node) - 1, 0)
    raise Invalid(
        f"{what} holds a {type(node).__name__}, which is not JSON", hint="Convert it before you send it.", field=what
    )


def _check_text(text: str, what: str) -> int:
    if not text.isascii() and not is_unicode(text):
        raise Invalid(
            f"{what} holds a text with lone surrogates", hint="Send texts that are valid Unicode.", field=what
        )
    return len(text) + 2


def _check_key(key: Any, what: str) -> int:
    if not isinstance(key, str):
        raise Invalid(
            f"{what} has a key that is a {type(key).__name__}, not a text", hint="Use texts as keys.", field=what
        )
    return _check_text(key, what) + 1


def _check_integer(number: int, what: str) -> int:
    if not MIN_INT <= number <= MAX_INT:
        raise Invalid(f"{what} holds an integer beyond 64 bits", hint="Send such a number as a text.", field=what)
    return 1


def _check_float(number: float, what: str) -> int:
    if not math.isfinite(number):
        raise Invalid(f"{what} holds a number that is not finite", hint="JSON has no NaN and no Infinity.", field=what)
    return 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_first_double(pairs)!r:.80} is there twice")
    return found


def _first_double(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_INT_DIGITS:
        raise ValueError("an integer is beyond 64 bits; send it as a text")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _too_deep(what: str, bounds: Bounds) -> Invalid:
    return Invalid(f"{what} is nested deeper than {bounds.max_depth} levels", hint="Send a flatter value.", field=what)

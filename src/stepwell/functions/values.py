"""Values as JSON, by their types: what is recorded once is what comes back, on this machine or years later.

Rules: results go through JSON once, live as on replay, and are decoded by the annotation (source: API, rule 5). New
fields take their defaults, unknown ones are ignored. What JSON cannot hold (NaN, lone surrogates, keys that are no
texts, cycles) is refused when it is encoded, never changed in silence.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from stepwell.functions.defaults import completed, leaves_defaults
from stepwell.functions.doubts import expected_of, innermost, part_at, too_deep
from stepwell.functions.errors import NotJson, ResultMismatch
from stepwell.functions.pydantic import dump, is_model, load

#: Brackets within brackets, at the most: what a small stack on another machine can still read.
MAX_DEPTH = 100
#: Annotations that leave open what comes back, so that only plain JSON can be promised to come back as it was.
LOOSE = (Any, object)
#: Types whose decoders are kept.
KNOWN_TYPES = 4_096


def encode(value: Any, *, in_order: bool = False) -> str:
    """JSON of a value: plain JSON, dataclasses, Structs, tuples, sets, enums, dates, UUIDs, bytes, Pydantic models.

    `in_order` sorts sets and keys, so that equal values give equal bytes in every process. Raises NotJson, which says
    where the offender is.
    """
    try:
        text = (_SORTER if in_order else _ENCODER).encode(value)
    except Exception as error:
        raise _not_json(value, error) from None
    if b"null" in text and value is not None:
        _refuse_nan(value)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and too_deep(text, MAX_DEPTH):
        raise NotJson(f"the value is nested deeper than {MAX_DEPTH} levels", type=type(value).__name__, hint=_FLATTER)
    return text.decode()


def decode(text: str, type: Any) -> Any:  # noqa: A002 - reads as the annotation that it is
    """The value of JSON text as a type; Any gives plain JSON. Raises ResultMismatch when it does not fit."""
    try:
        return decoder(type)(text)
    except Exception as error:
        raise mismatch(text, type, error) from None


def through(value: Any, type: Any) -> tuple[str, Any]:  # noqa: A002
    """The JSON of a value, and the value as it comes back. Raises NotJson when it does not come back as its type."""
    text = encode(value)
    try:
        back = decoder(type)(text)
    except Exception as error:
        raise _unfitting(value, mismatch(text, type, error)) from None
    if type in LOOSE and back != value:
        raise not_plain(value)
    return text, back


def decoder(type: Any) -> Callable[[str], Any]:  # noqa: A002
    """A function from JSON text to a value of a type, kept for the next time. Raises TypeError for an unusable type."""
    try:
        return _decoder(type)
    except TypeError:
        return _decoder.__wrapped__(type)  # an Annotated with something unhashable in it


def mismatch(text: str, type: Any, error: Exception) -> ResultMismatch:  # noqa: A002
    """Why recorded text is not of a type any more, for people."""
    path, expected = expected_of(error, type)
    return ResultMismatch(path, part_at(text, path), expected)


@lru_cache(KNOWN_TYPES)
def _decoder(type: Any) -> Callable[[str], Any]:  # noqa: A002
    wanted = Any if type is object else type
    decode = msgspec.json.Decoder(wanted, dec_hook=_from_json).decode
    return (lambda text: completed(decode(text))) if leaves_defaults(wanted) else decode


def _to_json(value: Any) -> Any:
    if is_model(type(value)):
        return dump(value)
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    raise NotImplementedError


def _from_json(type: Any, value: Any) -> Any:  # noqa: A002
    if is_model(type):
        return load(type, _ENCODER.encode(value))
    raise NotImplementedError(f"{type.__name__} cannot be read from JSON")


def _refuse_nan(value: Any) -> None:
    """JSON has no NaN: the encoder writes null. MessagePack has it, so it tells whether a null could have been one."""
    try:
        packed = _PACKER.encode(value)
    except OverflowError:  # an int beyond 64 bits is JSON, but not MessagePack
        packed = _HUGE_FLOATS[0]
    if any(start in packed for start in _HUGE_FLOATS):
        plain = msgspec.to_builtins(value, enc_hook=_to_json)
        if _has_nan(plain):
            path, number = innermost(plain, _has_nan)
            raise NotJson(f"{number} at {path} is not JSON", type="float", path=path, hint=_NO_NAN)


def _has_nan(value: Any) -> bool:
    try:
        _FINITE.encode(value)
    except ValueError:
        return True
    return False


def _unreadable(value: Any) -> bool:
    try:
        _ENCODER.encode(value)
    except Exception:
        return True
    return False


def _changes(value: Any) -> bool:
    return bool(decode(encode(value), Any) != value)


def _not_json(value: Any, error: Exception) -> NotJson:
    name = type(value).__name__
    if isinstance(error, RecursionError):
        return NotJson(f"the {name} is nested too deeply, or holds itself", type=name, hint=_FLATTER)
    path, part = innermost(value, _unreadable)
    name = type(part).__name__
    why = f": {error}" if str(error) else ""
    return NotJson(f"the {name} at {path} is not JSON{why}", type=name, path=path)


def _unfitting(value: Any, why: ResultMismatch) -> NotJson:
    name = type(value).__name__
    message = f"the {name} does not fit its annotation at {why.path}: got {why.recorded}, expected {why.expected}"
    return NotJson(message, type=name, path=why.path, hint="Correct the annotation, or what the function returns.")


def not_plain(value: Any) -> NotJson:
    """Why a value cannot be recorded where no type says what it is."""
    path, part = innermost(value, _changes)
    name = type(part).__name__
    message = f"the {name} at {path} would come back from JSON as something else, and no annotation says what it is"
    hint = "Annotate it. For a function without annotations say it in the call: ctx.options(returns=T).step(...)."
    return NotJson(message, type=name, path=path, hint=hint)


#: All are stateless; making one for each call costs more than encoding.
_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)
_FINITE = json.JSONEncoder(allow_nan=False)
_SORTER = msgspec.json.Encoder(enc_hook=_to_json, order="deterministic")
_PACKER = msgspec.msgpack.Encoder(enc_hook=_to_json)
#: How NaN, the infinities, and numbers over 1e231 begin in MessagePack.
_HUGE_FLOATS = (b"\xcb\x7f", b"\xcb\xff")
_FLATTER = "Make it flatter, or keep the inner part elsewhere."
_NO_NAN = "JSON has no NaN and no Infinity: return None or a text in their place."

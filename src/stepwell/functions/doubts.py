"""Where a value and JSON do not fit, and how to say it. Slow, and only asked after something went wrong."""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import msgspec

#: How much of a value is looked at, and how much of it is shown.
MAX_LEVELS = 200
MAX_PARTS = 20_000
MAX_SHOWN_CHARS = 200
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_PLACE = re.compile(r" - at (`key` in )?`(\$.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")

Found = tuple[str, Any]


def innermost(value: Any, wrong: Callable[[Any], bool]) -> Found:
    """The smallest part of a wrong value that is wrong by itself, as (path, part)."""
    path = "$"
    for _ in range(MAX_LEVELS):
        if isinstance(value, dict):
            for key in islice(value, MAX_PARTS):
                if wrong({key: None}):
                    return f"{path} (a key)", key
        found = next((part for part in islice(_parts(path, value), MAX_PARTS) if wrong(part[1])), None)
        if found is None:
            break
        path, value = found
    return path, value


def _parts(path: str, value: Any) -> Iterator[Found]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{path}.{key}", part
    elif type(value) in (list, tuple, set, frozenset):
        for number, part in enumerate(value):
            yield f"{path}[{number}]", part
    elif not isinstance(value, type):
        for name in _field_names(value):
            yield f"{path}.{name}", getattr(value, name, None)


def _field_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    return tuple(field.name for field in fields(value)) if is_dataclass(value) else ()


def too_deep(text: bytes, limit: int) -> bool:
    """Whether JSON text is nested deeper than `limit`: empty brackets go, level by level, until none are left."""
    return _deeper(text, limit) and _deeper(_TEXTS.sub(b"", text), limit)


def _deeper(text: bytes, limit: int) -> bool:
    left = text.translate(_BRACKETS, _OTHERS)
    for _ in range(limit):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def expected_of(error: Exception, wanted: Any) -> Found:
    """(path, what was expected there) of an error of decoding."""
    said = str(error) or type(error).__name__
    place = _PLACE.search(said)
    path = place[2] if place else "$"
    reason = said[: place.start()] if place else said
    return path, f"{readable(wanted)}: {'a key, ' if place and place[1] else ''}{reason.replace('`', '')}"


def part_at(text: str, path: str) -> str:
    """The JSON at a path, shortened; where the path cannot be followed, what is around it."""
    try:
        part = msgspec.json.decode(text)
        for name, number in _STEP.findall(path):
            part = part[name] if name else part[int(number)]
    except (KeyError, IndexError, TypeError):
        pass
    except Exception:
        return shortened(text)
    return shortened(msgspec.json.encode(part).decode())


def shortened(text: str) -> str:
    """A text that fits a line."""
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}... ({len(text):,} characters)"


def readable(wanted: Any) -> str:
    """A type as one would write it."""
    if wanted is None or wanted is type(None):
        return "None"
    if isinstance(wanted, type) and not hasattr(wanted, "__args__"):
        return wanted.__qualname__.rpartition("<locals>.")[2]
    return re.sub(r"\b(?:\w+\.)+(?=\w)|<locals>\.", "", str(wanted))

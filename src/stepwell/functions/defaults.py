"""Defaults of dataclasses: msgspec leaves a missing one to the class, and then does not encode it again.

So a value that was read would lose a field when it is recorded once more. Here the instances get what is theirs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_origin

import msgspec
from msgspec import inspect as types

from stepwell.functions.annotations import parts_of

T = TypeVar("T")
#: Classes of which it is kept how to look into them.
KNOWN_CLASSES = 4_096
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_ROWS = (list, tuple, set, frozenset)


def leaves_defaults(wanted: Any) -> bool:
    """Whether values of a type may hold a dataclass that lacks a default of its own after it was read."""
    if wanted is Any or wanted is object:
        return False
    parts = parts_of(types.type_info(wanted))
    return any(isinstance(part, types.DataclassType) and bool(_defaults(part.cls)) for part in parts)


def completed(value: T) -> T:
    """The value, whose dataclasses have all their fields now. It is fresh from a decoder: a tree, and nobody else's."""
    left: list[Any] = [value]
    while left:
        one = left.pop()
        look = _look_into(one.__class__)
        if look is not None:
            left += look(one)
    return value


@lru_cache(KNOWN_CLASSES)
def _look_into(cls: type) -> Callable[[Any], list[Any]] | None:
    """Completes an instance of a class, and lists what is in it; None for what can hold no dataclass."""
    if issubclass(cls, _ROWS):
        return _looked_at
    if issubclass(cls, dict):
        return lambda one: _looked_at(one.values())
    if issubclass(cls, msgspec.Struct):
        names: tuple[str, ...] = cls.__struct_fields__
        return lambda one: _looked_at([getattr(one, name) for name in names])
    return _look_into_dataclass(cls) if is_dataclass(cls) else None


def _look_into_dataclass(cls: Any) -> Callable[[Any], list[Any]]:
    names, defaults = tuple(field.name for field in fields(cls)), tuple(_defaults(cls).items())

    def look(one: Any) -> list[Any]:
        for name, default in defaults:  # there are none where there is no __dict__
            if name not in one.__dict__:
                one.__dict__[name] = default
        return [part for name in names if (part := getattr(one, name, None)).__class__ not in _SCALARS]

    return look


def _looked_at(parts: Iterable[Any]) -> list[Any]:
    return [part for part in parts if part.__class__ not in _SCALARS]


def _defaults(cls: Any) -> Mapping[str, Any]:
    """The defaults that are attributes of the class; those of slots, and what factories make, are set anyway."""
    cls = get_origin(cls) or cls
    if not cls.__dictoffset__:
        return {}
    return {
        field.name: field.default
        for field in fields(cls)
        if field.default is not MISSING and not hasattr(type(getattr(cls, field.name, None)), "__set__")
    }

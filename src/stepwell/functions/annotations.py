"""Annotations: what they name, and whether a value of such a type can be read back from JSON."""

import collections.abc
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from msgspec import inspect as types

from stepwell.functions.doubts import readable
from stepwell.functions.pydantic import is_model
from stepwell.model.errors import Invalid

_READABLE = "a dataclass, msgspec Struct, TypedDict, NamedTuple, Enum, Pydantic model, or a type of JSON or datetime"
_LATER = (collections.abc.Awaitable, collections.abc.Coroutine)


class Unresolved(Invalid):
    """An annotation names something that is not there, or not yet."""


def parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function; annotations that cannot be evaluated yet do no harm."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return list(inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF).parameters.values())
    return list(inspect.signature(fn).parameters.values())


def hints_of(fn: Callable[..., Any], what: str) -> Mapping[str, Any]:
    """The annotations of a function as types. Raises Unresolved, and Invalid for what is no type at all."""
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except NameError as error:
        raise _unresolved(what, error) from None
    except (TypeError, SyntaxError, AttributeError) as error:
        if not getattr(fn, "__annotations__", None):
            return {}
        raise Invalid(f"an annotation of {what} is no type: {error}", hint=f"Use {_READABLE}.") from None


def result_of(hints: Mapping[str, Any]) -> Any:
    """What a call gives in the end: the result of an awaitable, Any where nothing is said or nothing ever returns."""
    wanted = hints.get("return", Any)
    if wanted in (typing.NoReturn, typing.Never):
        return Any
    if typing.get_origin(wanted) in _LATER:
        return (typing.get_args(wanted) or (Any,))[-1]
    return wanted


def check_type(wanted: Any, what: str) -> None:
    """Raises Invalid for a type whose values cannot be read back from JSON, naming the part that cannot."""
    if wanted is Any or wanted is object:
        return
    try:
        known = types.type_info(wanted)
    except NameError as error:
        raise _unresolved(what, error) from None
    except (TypeError, RecursionError) as error:
        raise Invalid(f"{what} has a type that cannot be read from JSON: {error}", hint=_union_hint(error)) from None
    for part in parts_of(known):
        if isinstance(part, types.CustomType) and not is_model(part.cls):
            raise Invalid(
                f"{what} is {readable(wanted)}, and a {readable(part.cls)} cannot be read back from JSON",
                hint=f"Use {_READABLE}.",
            )


def has_sets(wanted: Any) -> bool:
    """Whether values of a type may hold sets, whose order is not the same in every process."""
    if wanted is Any or wanted is object:
        return False
    return any(isinstance(part, types.SetType | types.FrozenSetType) for part in parts_of(types.type_info(wanted)))


def parts_of(known: Any) -> Iterator[Any]:
    """A type and all types within it, each once."""
    stack, seen = [known], set[int]()
    while stack:
        part = stack.pop()
        if isinstance(part, tuple):
            stack.extend(part)
        elif isinstance(part, types.Type | types.Field) and id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, types.Type):
                yield part
            stack.extend(getattr(part, name) for name in _names(part) if name not in ("default", "default_factory"))


def _names(part: Any) -> tuple[str, ...]:
    if is_dataclass(part):
        return tuple(field.name for field in fields(part))
    return tuple(getattr(part, "__struct_fields__", ()))


def _unresolved(what: str, error: NameError) -> Unresolved:
    hint = "Define or import it at the top of its module: not inside a function, nor for type checking only."
    return Unresolved(f"an annotation of {what} names {error.name!r}, which is not there", hint=hint)


def _union_hint(error: Exception) -> str:
    if "union" in str(error):
        return "JSON cannot tell these apart: use msgspec Structs with tag=True, or one type with optional fields."
    return f"Use {_READABLE}."

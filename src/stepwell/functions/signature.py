"""Signatures: arguments by name as one JSON object, and results, by their annotations (source: API, rules 1 and 5).

A forward reference to what comes later in a module is resolved at the first use; all else is refused at registration.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.functions.annotations import check_type, has_sets, hints_of, parameters_of, result_of
from stepwell.functions.doubts import readable
from stepwell.functions.errors import ArgumentError, NotJson
from stepwell.functions.values import LOOSE, decode, decoder, encode, mismatch, not_plain, through
from stepwell.model.errors import Invalid

MAX_PARAMETERS = 255
_MISSING: Any = inspect.Parameter.empty


class Results:
    """How what a function returns is recorded and read back. Without an annotation, only plain JSON is."""

    def __init__(self, type: Any) -> None:  # noqa: A002 - it is one
        self._type = type

    @property
    def type(self) -> Any:
        """The annotation."""
        return self._type

    def through(self, value: Any) -> tuple[str, Any]:
        """The JSON of a result and the result as it will be read back. Raises NotJson."""
        return through(value, self.type)

    def encode_result(self, value: Any) -> str:
        """The JSON of a result. Raises NotJson when it would not come back as what the annotation says."""
        return through(value, self.type)[0]

    def decode_result(self, text: str) -> Any:
        """A recorded result. Raises ResultMismatch when the annotation has become another one that it does not fit."""
        return decode(text, self.type)


class Parameter(Struct, frozen=True):
    """One parameter. `default` is the JSON of its default, None: there is none."""

    name: str
    type: Any
    default: str | None = None

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is None


class Signature(Results):
    """The parameters of a function after its context, and its results. Made by `signature_of`."""

    def __init__(self, fn: Callable[..., Any], what: str, parameters: list[inspect.Parameter], returns: Any) -> None:
        super().__init__(returns)
        self.what, self._fn = what, fn
        self._given = parameters
        self.names = tuple(parameter.name for parameter in parameters)
        self._positional = sum(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters)
        self._defaults = {one.name: one.default for one in parameters if one.default is not _MISSING}

    # ── types, resolved once ─────────────────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def _hints(self) -> Mapping[str, Any]:
        return hints_of(self._fn, self.what)

    @property
    def type(self) -> Any:
        """What it returns."""
        return self._result

    @functools.cached_property
    def _result(self) -> Any:
        wanted = result_of(self._hints) if self._type is None else self._type
        check_type(wanted, f"what {self.what} returns")
        return wanted

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What a call may give, in order."""
        return tuple(self._parameter(one) for one in self._given)

    def _parameter(self, given: inspect.Parameter) -> Parameter:
        wanted = self._hints.get(given.name, Any)
        if given.default is None:
            wanted = typing.Optional[wanted]  # noqa: UP045 - `x: int = None` says so, too, and | fails for some
        check_type(wanted, f"{self.what}({given.name})")
        if given.default is _MISSING:
            return Parameter(given.name, wanted)
        try:
            return Parameter(given.name, wanted, encode(given.default))
        except NotJson as error:
            raise Invalid(
                f"the default of {given.name} in {self.what} is not JSON: {error.message}",
                hint="Use a default that can be recorded, for example None.",
            ) from None

    @functools.cached_property
    def _decode(self) -> Callable[[str], Any]:
        make: Any = typing.TypedDict
        fields: dict[str, Any] = {}
        for one in self.parameters:
            fields[one.name] = typing.Required[one.type] if one.required else typing.NotRequired[one.type]
        return decoder(make("Arguments", fields))

    @functools.cached_property
    def _loose(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.parameters if one.type in LOOSE)

    @functools.cached_property
    def _has_sets(self) -> bool:
        """Sets have no order, and not the same one in every process."""
        return any(has_sets(one.type) for one in self.parameters)

    def check(self) -> None:
        """Resolves all types now. Raises Invalid for one that does not exist or cannot be read back from JSON."""
        _ = self._decode, self._result

    # ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The arguments of a call as a JSON object of names, defaults filled in: equal calls give equal bytes.

        Raises ArgumentError for too many, missing, unknown ones, and for values that are not of the parameter's type.
        """
        values = self._named(args, kwargs)
        try:
            text = encode(values, in_order=self._has_sets)
            back = self.arguments(text)
            for name in self._loose:
                if back[name] != values[name]:
                    raise not_plain({name: values[name]})
        except NotJson as error:
            path = error.path.removeprefix("$.")
            raise ArgumentError(
                f"{self.what}({path}): {error.message}", field=_first(error.path), hint=error.hint
            ) from None
        return text

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > self._positional:
            raise ArgumentError(
                f"{self.what} takes {self._positional} arguments by position, {len(args)} were given",
                field=self.names[self._positional] if self._positional < len(self.names) else "",
            )
        values = dict(zip(self.names, args, strict=False))
        for name in kwargs:
            if name not in self.names:
                raise self._unknown(name)
            if name in values:
                raise ArgumentError(f"{self.what} got {name} twice", field=name)
        if len(values) == len(self.names):
            return values
        given = {**self._defaults, **values, **kwargs}
        missing = [name for name in self.names if name not in given]
        if missing:
            raise ArgumentError(f"{self.what} needs {', '.join(missing)}", field=missing[0])
        return {name: given[name] for name in self.names}

    def whole(self, value_json: str) -> str:
        """The arguments for input that came as one value, from the wire or an event, as JSON.

        One parameter gets it whole. None: it must be null or {}. Several: it is an object of names.
        """
        if len(self.names) == 1:
            text = f'{{"{self.names[0]}":{self._one_value(value_json)}}}'
        else:
            text = self._object(value_json)
        self.arguments(text)
        return text

    def _one_value(self, value_json: str) -> str:
        try:
            _RAW.decode(value_json)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ArgumentError(f"the input of {self.what} is not JSON: {error}", field=self.names[0]) from None
        return value_json

    def _object(self, value_json: str) -> str:
        try:
            given = _OBJECT.decode(value_json) or {}
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ArgumentError(
                f"{self.what} takes an object of {', '.join(self.names)}"
                if self.names
                else f"{self.what} takes no input",
                hint="Send null or {}." if not self.names else "",
            ) from None
        for name in given:
            if name not in self.names:
                raise self._unknown(name)
        for one in self.parameters:
            if one.default is not None:
                given.setdefault(one.name, msgspec.Raw(one.default.encode()))
        return msgspec.json.encode({name: given[name] for name in self.names if name in given}).decode()

    def arguments(self, text: str) -> dict[str, Any]:
        """The arguments that recorded JSON tells of, as the function takes them; what is missing takes its default.

        Unknown names are ignored. Raises ArgumentError, whose field is the parameter.
        """
        try:
            found: dict[str, Any] = self._decode(text)
        except Invalid:
            raise
        except Exception as error:
            raise self._unfit(text, error) from None
        return found

    def _unfit(self, text: str, error: Exception) -> ArgumentError:
        why = mismatch(text, Any, error)
        reason = why.expected.partition(": ")[2]
        if why.path == "$" and reason.startswith("Object missing required field"):
            field = reason.rpartition(" ")[2]
            return ArgumentError(f"{self.what} needs {field}", field=field)
        field = _first(why.path)
        types = {one.name: readable(one.type) for one in self.parameters}
        return ArgumentError(
            f"{self.what}({why.path.removeprefix('$.').removeprefix('$')}): {reason}, in {why.recorded}",
            field=field,
            hint=f"{field} is declared as {types[field]}." if field in types else "",
        )

    def _unknown(self, name: str) -> ArgumentError:
        hint = f"Its parameters are {', '.join(self.names)}." if self.names else "It has no parameters."
        return ArgumentError(f"{self.what} has no parameter {name}", field=name, hint=hint)


def signature_of(fn: Callable[..., Any], *, skip: int, what: str = "", returns: Any = None) -> Signature:
    """The signature without its first `skip` parameters. Raises Invalid for parameters that have no one name."""
    what = what or getattr(fn, "__name__", "the function")
    parameters = parameters_of(fn)[skip:]
    for one in parameters:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise Invalid(
                f"{what}: parameter {one} cannot be recorded by its name",
                field=one.name,
                hint="Arguments are stored by name: no positional-only parameters, no *args, no **kwargs.",
            )
    if len(parameters) > MAX_PARAMETERS:
        raise Invalid(f"{what} has {len(parameters)} parameters, at most {MAX_PARAMETERS}", hint="Take a dataclass.")
    return Signature(fn, what, parameters, returns)


def results_of(fn: Callable[..., Any], returns: Any = None) -> Results:
    """How the results of any callable are recorded: a function, lambda, method, partial or object that can be called.

    `returns` wins over its annotation. Raises Invalid for a type that cannot be read back from JSON.
    """
    if returns is not None:
        return _results(returns)
    inner = fn if type(fn) is FunctionType else _underlying(fn)
    # A function that was made in the body holds what the body holds, so it is not kept.
    return _kept_of(inner) if getattr(inner, "__closure__", None) is None else _results_of(inner)


def _results_of(inner: Any) -> Results:
    if isinstance(inner, type):
        return _results(inner)
    wanted = _declared(inner)
    return _results(wanted if wanted is Any or isinstance(wanted, type) else _annotated(inner))


_kept_of = functools.lru_cache(4_096)(_results_of)


def _declared(fn: Any) -> Any:
    try:
        return (getattr(fn, "__annotations__", None) or {}).get("return", Any)
    except NameError:  # Python 3.14 evaluates annotations when they are asked for
        return ""


def _results(wanted: Any) -> Results:
    try:
        return _kept_results(wanted)
    except TypeError:  # not hashable
        return _kept_results.__wrapped__(wanted)


@functools.lru_cache(4_096)
def _kept_results(wanted: Any) -> Results:
    check_type(wanted, "what the step returns")
    return Results(wanted)


def _annotated(fn: Any) -> Any:
    return result_of(hints_of(fn, getattr(fn, "__qualname__", "the step")))


def _underlying(fn: Any) -> Any:
    """The function whose annotations count, or the class that makes an object of itself."""
    for _ in range(32):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.ismethod(fn):
            fn = fn.__func__
        else:
            break
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else type(fn).__call__


def _first(path: str) -> str:
    """The parameter that a path begins with."""
    name = path.removeprefix("$").removeprefix(".")
    for stop in ".[ ":
        name = name.partition(stop)[0]
    return name


_RAW = msgspec.json.Decoder(msgspec.Raw)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)

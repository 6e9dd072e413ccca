"""Arguments by name, and results by annotation."""

import functools
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from stepwell.functions.annotations import Unresolved
from stepwell.functions.errors import ArgumentError, NotJson, ResultMismatch
from stepwell.functions.signature import results_of, signature_of
from stepwell.model.errors import Invalid


@dataclass
class Order:
    id: str
    lines: list[str] = field(default_factory=list)


@dataclass
class Later:
    number: int


def buy(order: Order, count: int = 1, *, note: str | None = None) -> str:
    return f"{order.id} {count} {note}"


def one(order: Order) -> None: ...


def none() -> None: ...


loose = lambda value, more=None: [value, more]  # noqa: E731 - a function without annotations


BUY = signature_of(buy, skip=0, what="shop:buy")


def test_positional_and_keyword_calls_give_the_same_bytes() -> None:
    text = '{"order":{"id":"1","lines":[]},"count":1,"note":null}'
    assert BUY.bind((Order("1"),), {}) == text
    assert BUY.bind((), {"order": Order("1")}) == text
    assert BUY.bind((Order("1"), 1), {"note": None}) == text
    assert BUY.bind((), {"note": None, "count": 1, "order": Order("1")}) == text


def test_what_is_bound_comes_back_as_the_function_takes_it() -> None:
    text = BUY.bind((Order("1", ["tea"]), 2), {"note": "now"})
    assert BUY.arguments(text) == {"order": Order("1", ["tea"]), "count": 2, "note": "now"}
    assert buy(**BUY.arguments(text)) == "1 2 now"


@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [
        ((), {}, "order"),
        ((Order("1"), 2, "now"), {}, "note"),
        ((Order("1"),), {"order": Order("2")}, "order"),
        ((Order("1"),), {"nota": "x"}, "nota"),
        (("1",), {}, "order"),
        ((Order("1"), "2"), {}, "count"),
        ((Order("1"), None), {}, "count"),
        ((Order("1"), float("nan")), {}, "count"),
        ((Order("1", ["\ud800"]),), {}, "order"),
        ((Order("1"),), {"note": object()}, "note"),
        (({"id": 5},), {}, "order"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_with_its_field(
    args: tuple[Any, ...], kwargs: dict[str, Any], field: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        BUY.bind(args, kwargs)
    assert caught.value.field == field
    assert caught.value.fields["field"] == field
    assert "shop:buy" in caught.value.message
    assert caught.value.hint


def test_recorded_arguments_outlive_the_signature() -> None:
    assert BUY.arguments('{"order":{"id":"1","old":2},"gone":3}') == {"order": Order("1")}
    with pytest.raises(ArgumentError, match="shop:buy needs order") as caught:
        BUY.arguments('{"count":1}')
    assert caught.value.field == "order"
    for text in ("[]", "null", "{", "3"):
        with pytest.raises(ArgumentError):
            BUY.arguments(text)


def test_input_that_comes_whole() -> None:
    assert signature_of(one, skip=0).whole('{"id":"1"}') == '{"order":{"id":"1"}}'
    assert signature_of(none, skip=0).whole("null") == signature_of(none, skip=0).whole("{}") == "{}"
    assert BUY.whole('{"order":{"id":"1"}}') == '{"order":{"id":"1"},"count":1,"note":null}'


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (none, '{"a":1}'),
        (none, "3"),
        (one, "null"),
        (one, '{"id":"1"},"more":2'),
        (one, '{"id":"1"}}'),
        (one, "nope"),
        (one, "[" * 5_000),
        (buy, '{"order":{"id":"1"},"unknown":1}'),
        (buy, "null"),
        (buy, "[]"),
        (buy, '"\ud800"'),
    ],
)
def test_input_that_does_not_fit_is_refused(fn: Callable[..., Any], text: str) -> None:
    with pytest.raises(ArgumentError):
        signature_of(fn, skip=0).whole(text)


def test_parameters_without_a_type_take_plain_json_only() -> None:
    signature = signature_of(loose, skip=0)
    assert signature.bind(({"a": [1]},), {}) == '{"value":{"a":[1]},"more":null}'
    for value in ((1, 2), Order("1"), {1: 2}, {"a": {3}}):
        with pytest.raises(ArgumentError) as caught:
            signature.bind((), {"value": value})
        assert caught.value.field == "value"


def test_none_as_a_default_allows_none() -> None:
    sloppy = lambda count=None: count  # noqa: E731
    sloppy.__annotations__["count"] = int
    assert signature_of(sloppy, skip=0).bind((), {}) == '{"count":null}'


def test_sets_are_bound_in_the_same_order_in_every_process() -> None:
    program = (
        "from stepwell.functions.signature import signature_of\n"
        "def f(names: set[str]) -> None: ...\n"
        "print(signature_of(f, skip=0).bind(({'a', 'b', 'c', 'd', 'e'},), {}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {b'{"names":["a","b","c","d","e"]}\n'}


def variadic(*names: str) -> None: ...
def keywords(**names: str) -> None: ...
def positional(name: str, /) -> None: ...


@pytest.mark.parametrize("fn", [variadic, keywords, positional])
def test_parameters_without_one_name_are_refused(fn: Callable[..., Any]) -> None:
    with pytest.raises(Invalid, match="by its name"):
        signature_of(fn, skip=0)


def custom(value: complex) -> None: ...
def deep(value: list[dict[str, Callable[[], int]]]) -> None: ...
def union(value: Order | Later) -> None: ...
def returning() -> list[complex]:
    raise NotImplementedError


def broken_default(value: Any = object()) -> None: ...  # noqa: B008


@pytest.mark.parametrize("fn", [custom, deep, union, returning, broken_default])
def test_types_that_cannot_be_read_back_are_refused(fn: Callable[..., Any]) -> None:
    with pytest.raises(Invalid) as caught:
        signature_of(fn, skip=0).check()
    assert not isinstance(caught.value, Unresolved)
    assert caught.value.hint


def forward(value: "Later") -> "list[Later]":
    raise NotImplementedError


def test_a_name_that_comes_later_is_found_later() -> None:
    signature = signature_of(forward, skip=0)
    later = globals().pop("Later")
    with pytest.raises(Unresolved, match="Later"):
        signature.check()
    globals()["Later"] = later
    signature.check()
    assert signature.bind((Later(3),), {}) == '{"value":{"number":3}}'
    assert signature.decode_result('[{"number":3}]') == [Later(3)]


def test_results_are_read_by_the_annotation() -> None:
    assert BUY.encode_result("a") == '"a"'
    with pytest.raises(NotJson, match="annotation"):
        BUY.encode_result(3)
    with pytest.raises(ResultMismatch):
        BUY.decode_result("3")
    assert signature_of(buy, skip=0, returns=bytes).decode_result('"AA=="') == b"\x00"


class Shop:
    def method(self) -> Order:
        raise NotImplementedError

    async def later(self) -> Order | None:
        raise NotImplementedError

    def __call__(self, n: int) -> tuple[int, str]:
        raise NotImplementedError


def promised() -> Awaitable[Order]:
    raise NotImplementedError


def never() -> NoReturn:
    raise NotImplementedError


def text_annotation() -> "dict[str, Order]":
    raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "wanted"),
    [
        (buy, str),
        (lambda: 1, Any),
        (loose, Any),
        (functools.partial(functools.partial(buy, Order("1")), 2), str),
        (Shop().method, Order),
        (Shop.method, Order),
        (Shop().later, Order | None),
        (Shop(), tuple[int, str]),
        (functools.partial(Shop().method), Order),
        (Order, Order),
        (len, Any),
        ("".join, Any),
        (promised, Order),
        (never, Any),
        (none, type(None)),
        (text_annotation, dict[str, Order]),
        (functools.lru_cache(buy), str),
    ],
)
def test_results_of_any_callable(fn: Any, wanted: Any) -> None:
    assert results_of(fn).type == wanted
    assert results_of(fn, bytes).type is bytes


def test_a_callable_that_returns_what_cannot_be_read_back_is_refused_before_it_runs() -> None:
    def connect() -> complex:
        raise NotImplementedError

    with pytest.raises(Invalid, match="complex"):
        results_of(connect)


def test_only_a_function_that_outlives_the_call_is_kept() -> None:
    def make(n: int) -> Callable[[], Any]:
        def inner() -> "list[Order]":
            return [Order(str(n))]

        return inner

    assert results_of(make(1)).type == list[Order]

"""Values as JSON: what comes back is what went in, and what cannot come back is refused with its place."""

import math
import timeit
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest

from stepwell.functions.errors import NotJson, ResultMismatch
from stepwell.functions.values import MAX_DEPTH, decode, encode, through
from stepwell.model.errors import StepwellError

T = TypeVar("T")


@dataclass
class Line:
    name: str
    price: float | None = None


@dataclass
class Order:
    id: str
    lines: list[Line] = field(default_factory=list)


@dataclass
class Tree:
    value: int
    kids: "list[Tree]" = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    inside: T


class Card(msgspec.Struct, tag=True):
    number: str


class Cash(msgspec.Struct, tag=True):
    amount: int


class Row(TypedDict):
    id: int
    note: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


class Text(str):
    """As libraries make them."""

    __slots__ = ()


MOMENT = datetime(2024, 2, 29, 12, 30, 1, 999_999, tzinfo=UTC)

GOOD: list[tuple[Any, Any]] = [
    (None, type(None)),
    (True, bool),
    (0, int),
    (-(2**63) - 1, int),
    (2**64, int),
    (10**400, int),
    (10**400, Any),
    (-0.0, float),
    (5e-324, float),
    (1.7976931348623157e308, float),
    ("", str),
    ("\x00\u2028\U0001f600", str),
    ("null", Any),
    ([1, "a", None, {"b": [2.5]}], Any),
    (Order("1", [Line("tea", 2.5), Line("cup")]), Order),
    ([Order("1")], list[Order]),
    ({"a": Order("1")}, dict[str, Order]),
    (None, Order | None),
    (Order("1"), Order | str | None),
    (Tree(1, [Tree(2, [Tree(3)])]), Tree),
    (Box(Line("tea")), Box[Line]),
    (Card("4"), Card | Cash),
    (Cash(4), Card | Cash),
    ({"id": 1}, Row),
    (Point(1, 2), Point),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ({1, 2}, set[int]),
    (frozenset("a"), frozenset[str]),
    (Color.RED, Color),
    (Level.HIGH, Level),
    (Word.YES, Word),
    ({Color.RED: 1}, dict[Color, int]),
    ({1: "a"}, dict[int, str]),
    (MOMENT, datetime),
    (MOMENT.replace(tzinfo=None), datetime),
    (date(2024, 2, 29), date),
    (time(1, 2, 3), time),
    (timedelta(days=-1, microseconds=1), timedelta),
    (timedelta.max, timedelta),
    (b"\x00\xff", bytes),
    (UUID(int=7), UUID),
    (Decimal("1.10"), Decimal),
]


@pytest.mark.parametrize(("value", "wanted"), GOOD, ids=[f"{n}-{wanted}" for n, (_, wanted) in enumerate(GOOD)])
def test_what_goes_in_comes_back(value: Any, wanted: Any) -> None:
    text, back = through(value, wanted)
    assert back == value
    assert type(back) is type(value)
    assert decode(text, wanted) == value
    assert encode(back) == text


def test_subclasses_of_texts_and_numbers_are_plain() -> None:
    assert through([Text("a"), {"b": OrderedDict(c=1)}], Any) == ('["a",{"b":{"c":1}}]', ["a", {"b": {"c": 1}}])


def test_a_dict_keeps_its_order() -> None:
    assert list(through({"b": 1, "a": 2}, dict[str, int])[1]) == ["b", "a"]


def looped() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BAD: list[tuple[Any, str, str]] = [
    (object(), "$", "object"),
    ({"a": [1, {2j}]}, "$.a[1][0]", "complex"),
    (Order("1", [Line("tea"), Line("\ud800")]), "$.lines[1].name", "str"),
    ({"\udfff": 1}, "$ (a key)", "str"),
    (Order("1", [Line("tea", math.nan)]), "$.lines[0].price", "float"),
    ([None, -math.inf], "$[1]", "float"),
    ({"big": 10**400, "n": math.inf}, "$.n", "float"),
    (deque([1]), "$", "deque"),
    ({(1, 2): 3}, "$ (a key)", "tuple"),
    (10**5_000, "$", "int"),
    (Order, "$", "type"),
]


@pytest.mark.parametrize(("value", "path", "name"), BAD, ids=[f"{n}-{name}" for n, (_, _, name) in enumerate(BAD)])
def test_what_is_not_json_is_refused_with_its_place(value: Any, path: str, name: str) -> None:
    with pytest.raises(NotJson) as caught:
        encode(value)
    assert (caught.value.path, caught.value.type) == (path, name)
    assert caught.value.hint


@pytest.mark.parametrize("value", [looped(), nested(MAX_DEPTH + 1), nested(50_000), {"a": nested(MAX_DEPTH)}])
def test_what_is_too_deep_is_refused(value: Any) -> None:
    with pytest.raises(NotJson, match="nested"):
        encode(value)


def test_what_is_just_deep_enough_comes_back() -> None:
    assert decode(encode(nested(MAX_DEPTH)), Any) == nested(MAX_DEPTH)
    assert encode(["[{" * MAX_DEPTH, '"[\\' * MAX_DEPTH])  # brackets in texts are no depth
    assert encode([[{}, []]] * 10_000)


@pytest.mark.parametrize("value", [(1, 2), {"a": (1,)}, [Line("a")], {1: 2}, {"a": {3}}, MOMENT, {"id": UUID(int=1)}])
def test_without_a_type_only_plain_json_passes(value: Any) -> None:
    for wanted in (Any, object):
        with pytest.raises(NotJson) as caught:
            through(value, wanted)
        assert "returns=" in caught.value.hint


def test_a_value_that_is_not_of_its_type_is_refused_before_it_is_recorded() -> None:
    for value, wanted in (("3", int), (None, str), (Line("a"), Order), ((1, 2), tuple[int]), (Color.RED, Level)):
        with pytest.raises(NotJson, match="annotation"):
            through(value, wanted)


def test_results_outlive_their_types() -> None:
    assert decode('{"id":"1","gone":{"x":1}}', Order) == Order("1")
    assert decode('{"id":"1","lines":[{"name":"tea"}]}', Order) == Order("1", [Line("tea")])


@pytest.mark.parametrize(
    ("text", "wanted", "path", "recorded", "says"),
    [
        ('{"id":"1","lines":[{"name":"a"},{"name":5}]}', Order, "$.lines[1].name", "5", "Order: Expected str, got int"),
        ('{"lines":[]}', Order, "$", '{"lines":[]}', "required field id"),
        ('{"a":{"id":2}}', dict[str, Order], "$[...].id", '{"a":{"id":2}}', "dict[str, Order]: Expected str"),
        ('"blue"', Color, "$", '"blue"', "Color: Invalid enum value 'blue'"),
        ('{"id', Order, "$", '{"id', "truncated"),
        ("[" * 5_000, Any, "$", "... (5,000 characters)", "recursion"),
        ('"' + "x" * 300 + '"', int, "$", "xx... (302 characters)", "int: Expected int"),
    ],
)
def test_what_no_longer_fits_tells_path_json_and_type(
    text: str, wanted: Any, path: str, recorded: str, says: str
) -> None:
    with pytest.raises(ResultMismatch) as caught:
        decode(text, wanted)
    error = caught.value
    assert error.path == path
    assert error.recorded.endswith(recorded)
    assert says in error.expected
    assert error.message.splitlines() == [
        f"  path      {path}",
        f"- recorded  {error.recorded}",
        f"+ expected  {error.expected}",
    ]


def test_a_type_that_raises_what_it_likes_is_a_mismatch() -> None:
    @dataclass
    class Picky:
        value: int

        def __post_init__(self) -> None:
            raise StepwellError("never good enough")

    with pytest.raises(ResultMismatch, match="never good enough"):
        decode('{"value":1}', Picky)


def test_equal_sets_have_equal_bytes_in_order() -> None:
    words = [f"w{n}" for n in range(50)]
    assert encode(set(words), in_order=True) == encode(sorted(words))


def fastest_us(act: Callable[[], Any]) -> float:
    """Of several tries, since other processes take their share."""
    return min(timeit.repeat(act, number=2_000, repeat=15)) / 2_000 * 1e6


def test_a_small_dataclass_takes_not_many_times_what_the_codec_alone_takes() -> None:
    order = Order("1", [Line("tea", 2.5)])
    text = encode(order)
    raw_encode, raw_decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Order).decode
    ours = fastest_us(lambda: encode(order)) + fastest_us(lambda: decode(text, Order))
    raw = fastest_us(lambda: raw_encode(order)) + fastest_us(lambda: raw_decode(text))
    assert ours < 40 * raw, "a decoder made anew each time takes hundreds"

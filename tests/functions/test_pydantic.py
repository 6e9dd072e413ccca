"""Models of Pydantic as results and arguments, where it is installed."""

from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field

from stepwell.functions.errors import ArgumentError, NotJson, ResultMismatch
from stepwell.functions.signature import signature_of
from stepwell.functions.values import decode, encode, through

T = TypeVar("T")


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(alias="lineName", min_length=1)
    price: float | None = None

    shout = computed_field(return_type=str)(property(lambda self: str(self.name.upper())))


class Order(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    at: datetime
    raw: bytes = b""
    lines: tuple[Line, ...] = ()


class Box(BaseModel, Generic[T]):
    inside: T


class Names(RootModel[list[str]]):
    pass


ORDER = Order(at=datetime(2024, 1, 1, tzinfo=UTC), raw=b"raw", lines=(Line(lineName="tea"),))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (ORDER, Order),
        ([ORDER], list[Order]),
        ({"a": ORDER}, dict[str, Order]),
        (None, Order | None),
        (ORDER, Order | None),
        (Box[int](inside=3), Box[int]),
        (Names(["a"]), Names),
    ],
)
def test_models_come_back(value: Any, wanted: Any) -> None:
    text, back = through(value, wanted)
    assert back == value
    assert encode(back) == text


def test_models_outlive_their_classes_and_say_when_not() -> None:
    assert decode('{"inside":1,"gone":2}', Box[int]) == Box[int](inside=1)
    with pytest.raises(ResultMismatch) as caught:
        decode('[{"inside":"x"}]', list[Box[int]])
    assert caught.value.path == "$[0]"
    assert "integer" in caught.value.expected


def test_a_model_is_checked_where_it_is_given() -> None:
    def buy(line: Line) -> Line:
        return line

    signature = signature_of(buy, skip=0)
    signature.check()
    assert signature.arguments(signature.bind((Line(lineName="tea"),), {})) == {"line": Line(lineName="tea")}
    with pytest.raises(ArgumentError) as caught:
        signature.bind((Line.model_construct(name=""),), {})
    assert caught.value.field == "line"


def test_what_a_model_holds_must_be_json() -> None:
    with pytest.raises(NotJson, match="nan"):
        encode(Line(lineName="tea", price=float("nan")))
    with pytest.raises(NotJson):
        through(ORDER, Any)

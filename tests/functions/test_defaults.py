"""A value that was read and is recorded again has all that it had: missing defaults of dataclasses included."""

from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest

from stepwell.functions import values
from stepwell.functions.annotations import parts_of
from stepwell.functions.contexts import MutationContext
from stepwell.functions.defaults import leaves_defaults
from stepwell.functions.signature import signature_of
from tests.functions.shop import Counter

T = TypeVar("T")


@dataclass
class Decision:
    approved: bool
    by: str = "nobody"


@dataclass(frozen=True)
class Frozen:
    approved: bool = False
    tags: tuple[str, ...] = ("new",)


@dataclass(slots=True)
class Slots:
    approved: bool
    inside: Decision | None = None


@dataclass
class OnSlots(Slots):
    more: int = 3


@dataclass
class Nested:
    first: Decision
    others: list[Decision] = field(default_factory=list)
    up: "Nested | None" = None


@dataclass
class Box(Generic[T]):
    inside: T
    n: int = 1


class Told(msgspec.Struct):
    decision: Decision
    note: str = ""


class Row(TypedDict):
    decision: Decision


class Pair(NamedTuple):
    decision: Decision
    n: int = 0


SHORT = '{"approved":true}'
FULL = '{"approved":true,"by":"nobody"}'
CASES: list[tuple[Any, str, str]] = [
    (Decision, SHORT, FULL),
    (Decision | None, SHORT, FULL),
    (Decision | str, SHORT, FULL),
    (list[Decision], f"[{SHORT}]", f"[{FULL}]"),
    (tuple[int, Decision], f"[1,{SHORT}]", f"[1,{FULL}]"),
    (dict[str, list[Decision]], f'{{"a":[{SHORT}]}}', f'{{"a":[{FULL}]}}'),
    (Frozen, "{}", '{"approved":false,"tags":["new"]}'),
    (set[Frozen], "[{}]", '[{"approved":false,"tags":["new"]}]'),
    (Slots, f'{{"approved":true,"inside":{SHORT}}}', f'{{"approved":true,"inside":{FULL}}}'),
    (OnSlots, '{"approved":true}', '{"approved":true,"inside":null,"more":3}'),
    (
        Nested,
        f'{{"first":{SHORT},"up":{{"first":{SHORT},"others":[{SHORT}]}}}}',
        f'{{"first":{FULL},"others":[],"up":{{"first":{FULL},"others":[{FULL}],"up":null}}}}',
    ),
    (Box[Decision], f'{{"inside":{SHORT}}}', f'{{"inside":{FULL},"n":1}}'),
    (Told, f'{{"decision":{SHORT}}}', f'{{"decision":{FULL},"note":""}}'),
    (Row, f'{{"decision":{SHORT}}}', f'{{"decision":{FULL}}}'),
    (Pair, f"[{SHORT}]", f"[{FULL},0]"),
]


@pytest.mark.parametrize(("wanted", "text", "whole"), CASES)
def test_what_was_read_is_recorded_again_in_full(wanted: Any, text: str, whole: str) -> None:
    assert values.encode(values.decode(text, wanted)) == whole
    assert values.encode(values.decode(whole, wanted)) == whole


def test_arguments_and_rows_are_completed_too(counter: Counter) -> None:
    def act(decision: Decision, n: int = 1) -> None: ...

    found = signature_of(act, skip=0).arguments(f'{{"decision":{SHORT}}}')
    assert values.encode(found["decision"]) == FULL

    def body(ctx: MutationContext) -> str:
        (row,) = ctx.db.all("select 1 as approved", type=Decision)
        return values.encode(row)

    assert counter.invoke(counter.shop.bad(body)) == FULL


def test_an_instance_is_completed_after_its_own_post_init() -> None:
    @dataclass
    class Careful:
        n: int = 1
        twice: int = 0

        def __post_init__(self) -> None:
            self.twice = self.n * 2

    assert values.encode(values.decode("{}", Careful)) == '{"n":1,"twice":2}'


@pytest.mark.parametrize("wanted", [int, list[dict[str, int]], Any, object, Slots | None, dict[str, Any]])
def test_a_type_without_such_a_dataclass_is_decoded_by_msgspec_alone(wanted: Any) -> None:
    bare = [part for part in parts_of(msgspec.inspect.type_info(wanted)) if getattr(part, "cls", None) is Decision]
    assert leaves_defaults(wanted) == bool(bare)
    plain = getattr(values.decoder(wanted), "__self__", None)
    assert isinstance(plain, msgspec.json.Decoder) == (not bare)

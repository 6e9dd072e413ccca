import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.flows.events import FlowEvent, body_hash, canonical_json, event_view, parse_event
from stepwell.flows.jsonvalue import MAX_INT, MIN_INT
from stepwell.model.errors import Invalid, TooLarge

from .packages import NOW

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAF = (
    st.none() | st.booleans() | st.integers(MIN_INT, MAX_INT) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)
WILD_LEAF = LEAF | st.floats() | st.text(st.characters(), max_size=4) | st.integers() | st.binary(max_size=3)
WILD = st.recursive(
    WILD_LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(["id", "type", "source", "occurredAt", "receivedAt", "payload", "more"])


def parse(data: Any, **options: Any) -> FlowEvent:
    return parse_event(data, now_iso=NOW, **options)


def test_an_event_keeps_all_that_it_brings() -> None:
    text = (
        '{"id":"a","type":"t","source":"s","occurredAt":"2026-01-01T00:00:00Z",'
        '"receivedAt":"2026-01-02T00:00:00Z","payload":[1,null],"trace":{"x":1}}'
    )
    event = parse(text)
    assert event == parse(text.encode()) == parse(json.loads(text))
    assert event.extra == {"trace": {"x": 1}}
    assert event_view(event) == json.loads(text)


def test_defaults() -> None:
    event = parse({"id": "a", "type": "t"})
    assert event_view(event) == {"id": "a", "type": "t", "receivedAt": NOW, "payload": {}}
    assert parse({"type": "t"}, new_id=lambda: "made").id == "made"
    assert parse({"id": None, "type": "t"}, new_id=lambda: "made").id == "made"
    assert parse({"id": "mine", "type": "t"}, new_id=lambda: "made").id == "mine"


@pytest.mark.parametrize("received", [None, 5, "", [], {"a": 1}, False])
def test_received_at_that_is_no_text_is_set(received: Any) -> None:
    """Fault 3: `receivedAt: null` was silently lost."""
    assert parse({"id": "a", "type": "t", "receivedAt": received}).received_at == NOW


@pytest.mark.parametrize("payload", [None, "text", [], 0, False, {"a": None}])
def test_any_payload_survives(payload: Any) -> None:
    """Fault 4: null and text payloads were accepted and could never be read again."""
    event = parse({"id": "a", "type": "t", "payload": payload})
    assert parse(json.dumps(event_view(event))) == event


@pytest.mark.parametrize("key", ["id", "type", "source", "occurredAt"])
@pytest.mark.parametrize("value", ["", 1, [], "a\x00b", "a\nb", "\x7f", "\x85", "x" * 2_000])
def test_a_bad_field_is_named(key: str, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse({"id": "a", "type": "t", key: value})
    assert caught.value.fields["field"] == key
    assert f"event.{key}" in caught.value.message
    assert caught.value.hint


def test_lengths_are_bytes() -> None:
    assert parse({"id": "é" * 128, "type": "é" * 64}).type == "é" * 64
    for body in ({"id": "é" * 129, "type": "t"}, {"id": "a", "type": "é" * 65}, {"type": "t"}, {"id": "a"}):
        with pytest.raises(Invalid):
            parse(body)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"null", b'"a"', b"{", b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
        b'{"id":"a","type":"t","payload":NaN}', b'{"id":"a","type":"t","payload":-Infinity}',
        b'{"id":"a","type":"t","payload":1e999}', b'{"id":"a","type":"t","payload":"\\ud800"}',
        b'{"id":"a","type":"t","payload":{"\\udfff":1}}', b'{"id":"a","id":"b","type":"t"}',
        b'{"id":"a","type":"t","payload":18446744073709551616}',
        b'{"id":"a","type":"t","payload":' + b"9" * 5_000 + b"}", b'{"id":"a","type":"t","payload":' + b"[" * 100_000,
        b'{"id":"a","type":"t","payload":' + b"[" * 70 + b"]" * 70 + b"}",
    ],
)  # fmt: skip
def test_hostile_text_is_invalid(text: bytes) -> None:
    with pytest.raises(Invalid):
        parse(text)


def test_size_is_bounded_for_text_and_objects() -> None:
    body = {"id": "a", "type": "t", "payload": "x" * 200}
    for data in (body, json.dumps(body), json.dumps(body).encode()):
        with pytest.raises(TooLarge) as caught:
            parse(data, max_bytes=200)
        assert caught.value.fields["limit"] == 200
    with pytest.raises(TooLarge):
        parse({"id": "a", "type": "t", "payload": "é" * 150}, max_bytes=200)


@pytest.mark.parametrize("value", [[10**5_000], {10**5_000: 1}, {"a": object()}, (1,), {b"a": 1}])
def test_what_is_not_json_is_invalid(value: Any) -> None:
    with pytest.raises(Invalid):
        parse({"id": "a", "type": "t", "payload": value})


@pytest.mark.parametrize("value", [{"a": object()}, {b"a": 1}, math.inf])
def test_canonical_json_of_what_is_not_json_is_invalid(value: Any) -> None:
    for each in (value, 10**5_000):
        with pytest.raises(Invalid):
            canonical_json(each)


def test_a_value_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Invalid):
        parse({"id": "a", "type": "t", "payload": loop})
    bomb: list[Any] = []
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(TooLarge):
        parse({"id": "a", "type": "t", "payload": bomb})


@given(st.dictionaries(KEYS | st.text(max_size=3), WILD) | WILD)
def test_objects_give_an_event_or_a_told_error(data: Any) -> None:
    try:
        event = parse(data, new_id=lambda: "made")
    except (Invalid, TooLarge):
        return
    assert parse(canonical_json(event_view(event))) == event
    assert len(body_hash(event)) == 64


@given(st.binary(max_size=40) | st.text(st.characters(), max_size=40))
def test_bytes_give_an_event_or_a_told_error(data: bytes | str) -> None:
    with pytest.raises((Invalid, TooLarge)):
        parse(data)


@given(JSON)
def test_canonical_json_is_one_text_for_one_value(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert canonical_json(_turned(value)) == text


def _turned(value: Any) -> Any:
    """The same value with its keys in the other order."""
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(each) for each in value] if isinstance(value, list) else value


@given(WILD)
def test_canonical_json_gives_a_text_or_invalid(value: Any) -> None:
    with suppress(Invalid):
        canonical_json(value).encode()


def test_canonical_json_examples() -> None:
    assert canonical_json({"b": [1, 1.5, None, True], "a": "é"}) == '{"a":"é","b":[1,1.5,null,true]}'
    with pytest.raises(Invalid):
        canonical_json(math.nan)


def test_the_hash_tells_bodies_apart() -> None:
    base = {"id": "a", "type": "t", "payload": {"a": 1, "b": 2}}
    same = [{**base, "id": "other"}, {**base, "receivedAt": "x"}, {**base, "payload": {"b": 2, "a": 1}}]
    other = [{**base, "type": "u"}, {**base, "source": "s"}, {**base, "occurredAt": "o"}, {**base, "payload": {}},
             {**base, "more": 1}, {**base, "more": None}]  # fmt: skip
    assert {body_hash(parse(body)) for body in same} == {body_hash(parse(base))}
    assert len({body_hash(parse(body)) for body in [base, *other]}) == len(other) + 1

"""What a workflow gets of the event that started it: the same each time, as its parameters are annotated."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec import Struct

from stepwell.flows.workflows import AppWorkflows, event_input
from stepwell.functions.define import Event as UserEvent
from stepwell.functions.define import Workflow
from stepwell.functions.errors import ArgumentError
from stepwell.model.rows import Event


class Taking:
    """A signature that gives its value on as it is."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def whole(self, value_json: str) -> str:
        return value_json


def stored(**keys: Any) -> Event:
    row: dict[str, Any] = {"received_at": "2026-05-13T13:36:00.000Z", "source": None, "occurred_at": None}
    row |= {"payload": '{"a":1}', **keys}
    return Event(1, "main", "e", "t", body_hash="", matched=0, replays=0, created_at=1_000, **row)


def given(row: Event) -> Any:
    return json.loads(event_input(row, Taking("event")))


def test_the_input_is_the_event_and_the_same_each_time() -> None:
    row = stored(source="git", occurred_at="2026-05-13T13:35:00+02:00", extra='{"trace":7}')
    assert given(row) == {
        "id": "e", "type": "t", "source": "git", "occurredAt": "2026-05-13T13:35:00+02:00",
        "receivedAt": "2026-05-13T13:36:00+00:00", "payload": {"a": 1}, "trace": 7,
    }  # fmt: skip
    assert event_input(row, Taking("event")) == event_input(row, Taking("event"))
    assert event_input(row, Taking()) == "{}", "a workflow without parameters has no use for it"


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("yesterday", None), ("", None), ("2026-05-13", "2026-05-13T00:00:00+00:00"), ("12", None),
        ("2026-05-13T13:35:00", "2026-05-13T13:35:00+00:00"), (" 20260513T133500Z ", "2026-05-13T13:35:00+00:00"),
    ],
)  # fmt: skip
def test_a_time_that_is_none_fails_no_workflow(said: str, read: str | None) -> None:
    assert given(stored(occurred_at=said)).get("occurredAt") == read
    assert given(stored(received_at=said))["receivedAt"] == (read or "1970-01-01T00:00:01+00:00")


class Context:
    """What a workflow's first parameter is annotated with here."""


class Release(Struct):
    tag: str


async def typed(ctx: Context, event: UserEvent[Release]) -> None: ...


async def raw(ctx: Context, body: dict[str, Any]) -> None: ...


async def parts(ctx: Context, payload: Release, occurred_at: datetime, note: str = "none") -> None: ...


async def nothing(ctx: Context) -> None: ...


def arguments(fn: Callable[..., Any], row: Event) -> dict[str, Any]:
    """What a function would be called with."""
    workflow = Workflow[Any, Any]("ci", fn, {"on": "t"})
    assert AppWorkflows("ci", [workflow]).flow.steps[0].workflow == f"ci:{fn.__name__}"
    return workflow.signature.arguments(event_input(row, workflow.signature))


def test_a_workflow_gets_the_event_as_its_parameters_are_annotated() -> None:
    row = stored(payload='{"tag":"v1"}', source="git", occurred_at="2026-05-13", extra='{"trace":7}')
    event = arguments(typed, row)["event"]
    assert (event.id, event.type, event.payload, event.source) == ("e", "t", Release("v1"), "git")
    assert (event.occurred_at.isoformat(), event.received_at.minute) == ("2026-05-13T00:00:00+00:00", 36)
    body = arguments(raw, row)["body"]
    assert (body["payload"], body["trace"], body["id"]) == ({"tag": "v1"}, 7, "e")
    found = arguments(parts, row)
    assert (found["payload"], found["occurred_at"].day, found.get("note", "none")) == (Release("v1"), 13, "none")
    assert arguments(nothing, row) == {}


def test_a_payload_that_does_not_fit_is_told_by_its_path() -> None:
    with pytest.raises(ArgumentError, match="tag"):
        arguments(typed, stored(payload='{"tag":7}'))

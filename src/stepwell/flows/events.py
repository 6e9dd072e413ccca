"""Flow events: their shape, their wire form, and the hash that tells two bodies apart (source: seed, `FlowEvent`)."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct, field

from stepwell.flows.jsonvalue import MAX_BYTES, Bounds, canonical_json, check_json, has_control, parse_json
from stepwell.model.errors import Invalid, TooLarge
from stepwell.model.rows import Event

__all__ = ["FlowEvent", "body_hash", "canonical_json", "event_view", "flow_event", "parse_event"]

MAX_ID_BYTES = 256
MAX_TYPE_BYTES = 128
MAX_TEXT_BYTES = 1_024
_KNOWN = frozenset({"id", "type", "source", "occurredAt", "receivedAt", "payload"})


class FlowEvent(Struct, frozen=True):
    """One event. Times are the sender's ISO texts; `payload` is any JSON; `extra` holds the unknown keys."""

    id: str
    type: str
    source: str | None
    occurred_at: str | None
    received_at: str
    payload: Any
    extra: dict[str, Any] = field(default_factory=dict)


def parse_event(
    data: bytes | str | dict[str, Any],
    *,
    now_iso: str,
    new_id: Callable[[], str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> FlowEvent:
    """Check an event and fill in what the sender may leave out.

    `receivedAt` that is no text becomes `now_iso`, a missing payload `{}`, a missing id `new_id()` if that is given.
    Raises `Invalid` (field: `field`) or `TooLarge` (over `max_bytes` of JSON), and nothing else.
    """
    body = _body(data, Bounds(max_bytes=max_bytes))
    received = body.get("receivedAt")
    return FlowEvent(
        id=_text(body, "id", MAX_ID_BYTES) if new_id is None or body.get("id") is not None else new_id(),
        type=_text(body, "type", MAX_TYPE_BYTES),
        source=_optional(body, "source"),
        occurred_at=_optional(body, "occurredAt"),
        received_at=_text(body, "receivedAt", MAX_TEXT_BYTES) if isinstance(received, str) and received else now_iso,
        payload=body.get("payload", {}),
        extra={key: value for key, value in body.items() if key not in _KNOWN},
    )


def flow_event(row: Event) -> FlowEvent:
    """A stored event as its sender sent it."""
    return FlowEvent(
        id=row.id,
        type=row.type,
        source=row.source,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        payload=msgspec.json.decode(row.payload),
        extra=msgspec.json.decode(row.extra) if row.extra else {},
    )


def event_view(event: FlowEvent) -> dict[str, Any]:
    """The wire form: camelCase, absent instead of null, unknown keys at the top level as they came."""
    view: dict[str, Any] = {"id": event.id, "type": event.type}
    if event.source is not None:
        view["source"] = event.source
    if event.occurred_at is not None:
        view["occurredAt"] = event.occurred_at
    return {**view, "receivedAt": event.received_at, "payload": event.payload, **event.extra}


def body_hash(event: FlowEvent) -> str:
    """SHA-256 (hex) of what an id stands for: type, source, occurredAt, payload, extra keys; not receivedAt."""
    body = [event.type, event.source, event.occurred_at, event.payload, event.extra]
    return sha256(canonical_json(body).encode()).hexdigest()


def _body(data: bytes | str | dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    if isinstance(data, bytes | str):
        body = parse_json(data, what="event", bounds=bounds)
    else:
        body = data
        check_json(body, what="event", bounds=bounds)
        _check_size(body, bounds)
    if not isinstance(body, dict):
        raise Invalid(
            "an event must be a JSON object", hint='Send {"id": ..., "type": ..., "payload": ...}.', field="event"
        )
    return body


def _check_size(body: object, bounds: Bounds) -> None:
    size = len(canonical_json(body).encode())
    if size > bounds.max_bytes:
        raise TooLarge("event is too large", what="event", size=size, limit=bounds.max_bytes)


def _text(body: dict[str, Any], key: str, max_bytes: int) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise _bad(key, "must be a text that is not empty")
    if len(value.encode()) > max_bytes:
        raise _bad(key, f"is longer than {max_bytes} bytes")
    if has_control(value):
        raise _bad(key, "has control characters")
    return value


def _optional(body: dict[str, Any], key: str) -> str | None:
    return None if body.get(key) is None else _text(body, key, MAX_TEXT_BYTES)


def _bad(key: str, reason: str) -> Invalid:
    return Invalid(f"event.{key} {reason}", hint=f"Correct event.{key} and send the event again.", field=key)

"""What is sent and asked by name: signals, states, events; checked before anything is done with it."""

from datetime import datetime
from typing import Any

from stepwell.functions import values
from stepwell.functions.define import Event, Signal, State
from stepwell.kernel import check
from stepwell.model.errors import Invalid


def need_text(field: str, value: object, what: str) -> None:
    """Raises `Invalid` for what can be no id or name; `what` is what to give."""
    if not isinstance(value, str) or not value:
        raise Invalid(f"{field} cannot be {value!r:.80}", hint=f"Give {what}, a text.", field=field)
    check.size_of(field, value)


def signal_json(signal: Signal[Any] | str, value: Any) -> tuple[str, str]:
    """Name and payload of a signal. Raises `NotJson` for a value that its receiver could not read as its type."""
    if isinstance(signal, str):
        return signal, values.encode(value)
    if not isinstance(signal, Signal):
        hint = "Give Signal('name', Type), or its name as a text."
        raise Invalid(f"no signal: {signal!r:.80}", hint=hint, field="signal")
    return signal.name, values.through(value, signal.type)[0]


def need_state(value: object) -> None:
    """Raises `Invalid` for what names no state."""
    if not isinstance(value, State):
        raise Invalid(f"no state: {value!r:.80}", hint="Give the State('name', Type) that the run sets.", field="state")


def need_event(value: object) -> None:
    """Raises `Invalid` for what is no event."""
    if not isinstance(value, Event):
        hint = "Give Event('order.paid', {'order': 7})."
        raise Invalid(f"dispatch takes an Event, not {type(value).__name__}", hint=hint)
    occurred: object = value.occurred_at
    if occurred is not None and not isinstance(occurred, datetime):
        hint = "Give a datetime, best one with a time zone."
        raise Invalid(f"occurred_at must be a datetime, not {occurred!r:.80}", hint=hint, field="occurred_at")

"""Options as they are given to decorators: each is checked where it is written, since a failure comes too late."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from stepwell.functions.annotations import check_type
from stepwell.functions.define import CallOptions, Pool, Retry, duration_ms
from stepwell.kernel import check
from stepwell.model.errors import Invalid

#: What each decorator takes, beside the function.
OF_KIND: Mapping[str, frozenset[str]] = {
    "workflow": frozenset(("name", "version", "on", "pool", "deadline")),
    "action": frozenset(("internal", *CallOptions.__annotations__)),
    "mutation": frozenset(("name", "internal", "authorize")),
    "query": frozenset(("name", "internal", "authorize")),
}


def check_options(kind: str, given: Mapping[str, Any]) -> None:
    """Raises Invalid, naming the option, for one that the decorator of a kind does not have or cannot use."""
    known = OF_KIND[kind]
    for name, value in given.items():
        if name not in known:
            raise Invalid(
                f"@{kind} has no option {name!r}", field=name, hint=f"Its options are {', '.join(sorted(known))}."
            )
        _CHECKS[name](name, value)
    if given.get("delay") is not None and given.get("at") is not None:
        raise Invalid("give delay or at, not both", field="at", hint="delay is from now on, at is a moment.")


def _duration(name: str, value: Any) -> None:
    duration_ms(value, name)


def _some_time(name: str, value: Any) -> None:
    if duration_ms(value, name) == 0:
        _refuse(name, value, "more than nothing")


def _text(name: str, value: Any) -> None:
    check.name(name, value)


def _event_type(name: str, value: Any) -> None:
    if value is not None:
        check.name(name, value)


def _retry(name: str, value: Any) -> None:
    if not isinstance(value, bool | Retry):
        _refuse(name, value, "Retry(...), True for the app's policy, or False")


def _pool(name: str, value: Any) -> None:
    if not isinstance(value, Pool):
        _refuse(name, value, 'a Pool, for example Pool("gpu", 4)')


def _key(name: str, value: Any) -> None:
    check.run_id(value)


def _priority(name: str, value: Any) -> None:
    if value is None:
        _refuse(name, value, "a whole number")
    check.whole(name, value, *check.PRIORITY)


def _moment(name: str, value: Any) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        _refuse(name, value, "a datetime with a time zone")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        _refuse(name, value, "True or False")


def _callable(name: str, value: Any) -> None:
    if not callable(value):
        _refuse(name, value, "a function of (principal, call)")


def _type(name: str, value: Any) -> None:
    check_type(value, name)


def _refuse(name: str, value: Any, wanted: str) -> NoReturn:
    raise Invalid(f"{name} must be {wanted}, not {value!r:.80}", field=name, hint=f"Correct {name}, or leave it out.")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "name": _text,
    "version": _text,
    "on": _event_type,
    "internal": _flag,
    "authorize": _callable,
    "retry": _retry,
    "timeout": _duration,
    "heartbeat": _some_time,
    "deadline": _duration,
    "delay": _duration,
    "at": _moment,
    "pool": _pool,
    "key": _key,
    "priority": _priority,
    "returns": _type,
}

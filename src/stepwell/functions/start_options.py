"""The options of starting a run, checked where they are written (source: API, StartOptions)."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from stepwell.functions import values
from stepwell.functions.define import Mutation, Pool, StartOptions
from stepwell.functions.retry import duration_ms
from stepwell.model.errors import Invalid

#: Runs that nobody gave a scope are in this one.
SCOPE = "main"
MAX_TAGS = 64
REUSES = ("return", "raise", "replace")
_KNOWN = tuple(StartOptions.__annotations__)


def check_options(given: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an option that there is not, or whose value cannot be."""
    for name, value in given.items():
        if name not in _KNOWN:
            raise Invalid(f"there is no option {name!r}", hint=f"Options are {', '.join(_KNOWN)}.", field=name)
        if value is not None and name in _CHECKS and not _CHECKS[name][0](value):
            raise Invalid(f"{name} must be {_CHECKS[name][1]}, not {value!r:.80}", hint=f"Correct {name}.", field=name)
        if value is not None and name in ("delay", "deadline"):
            duration_ms(value, name)


def merged(before: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a view of a view: None takes one back."""
    return {name: value for name, value in {**before, **given}.items() if value is not None}


def scope_of(options: Mapping[str, Any]) -> str:
    """The scope that options name, or the default one."""
    scope: str = options.get("scope") or SCOPE
    return scope


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags to look for. Raises `Invalid` for what can be none."""
    if tags is not None:
        check_options({"tags": tags})
    return dict(tags or {})


def _is_json(value: object) -> bool:
    values.encode(value)
    return True


def _are_tags(tags: Any) -> bool:
    return (
        isinstance(tags, Mapping)
        and len(tags) <= MAX_TAGS
        and all(_is_valid(one) for pair in tags.items() for one in pair)
    )


def _is_valid(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_text(value: object) -> bool:
    return _is_valid(value) and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_text, "a text in valid Unicode that is not empty"),
    "if_exists": (lambda value: value in REUSES, f"one of {', '.join(REUSES)}"),
    "at": (_is_moment, "a datetime with a time zone"),
    "pool": (lambda value: isinstance(value, Pool), "a Pool"),
    "key": (_is_text, "a text in valid Unicode that is not empty"),
    "priority": (_is_whole, "a whole number"),
    "scope": (_is_text, "a text in valid Unicode that is not empty"),
    "on_complete": (lambda value: isinstance(value, Mutation), "a mutation of the app"),
    "tags": (_are_tags, f"up to {MAX_TAGS} names with a text each, as {{'customer': 'c-7'}}"),
    "context": (_is_json, "JSON"),
    "detached": (lambda value: False, "left out: only runs that a workflow starts have a parent"),
}

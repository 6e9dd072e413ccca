"""Options of what a body calls and starts: checked where they are written, read where they are used (source: API)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stepwell.functions.define import CallOptions, ContextOptions, duration_ms
from stepwell.functions.options import OF_KIND, check_options
from stepwell.functions.start_options import checked_tags
from stepwell.model.errors import Invalid

#: Options of a call that its function's decorator may give, too.
CALL_OPTIONS = frozenset(ContextOptions.__annotations__)
#: Options whose values are those of a decorator.
_CHECKED = OF_KIND["action"] - {"name"}
_NO_QUEUE = "What runs here waits in no queue: make it an action."
_FROM_OUTSIDE = "Await its result; or let a mutation start it, which has this option."
_DEADLINE = "A run has no attempts to limit: `deadline` is for all of it."
#: What each call takes, and what to do about some that it does not.
_TAKEN: Mapping[str, tuple[frozenset[str], Mapping[str, str]]] = {
    "an action": (frozenset(CallOptions.__annotations__), {}),
    "a step": (
        frozenset(("name", "retry", "timeout", "deadline", "delay", "at", "returns")),
        {
            "heartbeat": "Only an action has a context to send heartbeats with.",
            "pool": _NO_QUEUE,
            "key": _NO_QUEUE,
            "priority": _NO_QUEUE,
        },
    ),
    "a query": (frozenset(("name", "retry", "timeout", "deadline", "delay", "at")), {}),
    "a mutation": (
        frozenset(("name", "delay", "at")),
        {
            "retry": "One that fails has changed nothing: catch StepError and call it again.",
            "timeout": "`mutation_limit_ms` bounds all mutations.",
        },
    ),
    "a child": (
        frozenset(("name", "id", "delay", "at", "deadline", "pool", "key", "priority", "tags", "detached")),
        {
            "retry": "Its steps and actions are retried; for a new run, catch RunError and call it again.",
            "timeout": _DEADLINE,
            "heartbeat": _DEADLINE,
            "returns": "Annotate what the child returns.",
            "if_exists": _FROM_OUTSIDE,
            "on_complete": _FROM_OUTSIDE,
            "context": _FROM_OUTSIDE,
            "scope": _FROM_OUTSIDE,
        },
    ),
    "a dispatch": (frozenset(("name",)), {}),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_view(options: Mapping[str, Any]) -> None:
    """Raises Invalid for an option that there is not, and for a value that cannot be."""
    unknown = sorted(set(options) - CALL_OPTIONS)
    if unknown:
        raise Invalid(f"unknown option {unknown[0]!r}", hint=f"Options are {', '.join(sorted(CALL_OPTIONS))}.")
    check_options("action", {name: one for name, one in options.items() if name in _CHECKED and one is not None})
    checked_tags(options.get("tags"))


def refuse_others(what: str, options: Mapping[str, Any]) -> None:
    """Raises Invalid for an option of a view that a call does not have: it would do nothing, without a word."""
    taken, hints = _TAKEN[what]
    for name, value in options.items():
        if name not in taken and value is not None and value is not False:
            hint = hints.get(name) or f"Its options are {', '.join(sorted(taken))}. Call it without this one."
            raise Invalid(f"{what} has no option {name}", field=name, hint=hint)


def due_ms(options: Mapping[str, Any], now_ms: int) -> int | None:
    """When a call is to begin: `delay` from now, or `at` a moment; None: at once. Raises Invalid for both."""
    delay, at = options.get("delay"), options.get("at")
    if delay is not None and at is not None:
        raise Invalid("give delay or at, not both", hint="delay is from now on, at is a moment.")
    if at is not None:
        return moment_ms(at)
    return None if delay is None else now_ms + duration_ms(delay, "delay")


def moment_ms(when: datetime) -> int:
    """A moment in milliseconds since the epoch, never before it: a body may ask for the rest again."""
    if getattr(when, "tzinfo", None) is None:
        raise Invalid(f"{when!r} is not a moment", hint="Give a datetime with a time zone, for example tz=UTC.")
    return -((_EPOCH - when) // timedelta(milliseconds=1))

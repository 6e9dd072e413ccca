"""Options of what a body calls and starts: checked where they are written, read where they are used (source: API)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stepwell.functions.define import ContextOptions, duration_ms
from stepwell.functions.options import OF_KIND, check_options
from stepwell.model.errors import Invalid

#: Options of a call that its function's decorator may give, too.
CALL_OPTIONS = frozenset(ContextOptions.__annotations__)
#: Options whose values are those of a decorator.
_CHECKED = OF_KIND["action"] - {"name"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_view(options: Mapping[str, Any]) -> None:
    """Raises Invalid for an option that there is not, and for a value that cannot be."""
    unknown = sorted(set(options) - CALL_OPTIONS)
    if unknown:
        raise Invalid(f"unknown option {unknown[0]!r}", hint=f"Options are {', '.join(sorted(CALL_OPTIONS))}.")
    check_options("action", {name: one for name, one in options.items() if name in _CHECKED and one is not None})


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

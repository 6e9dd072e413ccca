"""`Pool`: a named limit of what runs at once, given by reference (source: API, choice 22)."""

import re
from typing import Any

from stepwell.kernel import check
from stepwell.model.errors import Invalid

#: Milliseconds of the units that a rate may have.
_SECOND, _MINUTE, _HOUR = 1_000, 60_000, 3_600_000
_UNITS = {"s": _SECOND, "second": _SECOND, "min": _MINUTE, "minute": _MINUTE, "h": _HOUR, "hour": _HOUR}
_RATE = re.compile(r"(\d{1,9})/([a-z]+)", re.ASCII)
MAX_LIMIT = 1_000_000


class Pool:
    """At most `limit` at once, `per_key` of one key, and `rate` begun, as in "600/min"; None is no limit."""

    __slots__ = ("limit", "name", "per_key", "rate", "rate_count", "rate_ms")

    def __init__(
        self, name: str, limit: int | None = None, *, per_key: int | None = None, rate: str | None = None
    ) -> None:
        check.name("the name of a pool", name)
        if type(limit) is int and limit == 0:
            hint = f"To stop it for a while: `stepwell pools pause {name}`; None is no limit."
            raise Invalid(f"pool {name} with a limit of 0 would never run anything", field="limit", hint=hint)
        check.whole("limit", limit, 1, MAX_LIMIT)
        check.whole("per_key", per_key, 1, MAX_LIMIT)
        self.name, self.limit, self.per_key, self.rate = name, limit, per_key, rate
        self.rate_count: int | None = None
        self.rate_ms = _SECOND
        if rate is not None:
            self.rate_count, self.rate_ms = _rate(rate)

    def __repr__(self) -> str:
        return f"Pool({self.name!r}, {self.limit!r}, per_key={self.per_key!r}, rate={self.rate!r})"


def _rate(rate: Any) -> tuple[int, int]:
    found = _RATE.fullmatch(rate.replace(" ", "")) if isinstance(rate, str) else None
    if found is None or found[2] not in _UNITS or int(found[1]) == 0:
        hint = 'A number for a time: "10/s", "600/min", "1000/hour".'
        raise Invalid(f"{rate!r:.80} is not a rate", field="rate", hint=hint)
    check.whole("the number of a rate", int(found[1]), 1, MAX_LIMIT)
    return int(found[1]), _UNITS[found[2]]

"""`Pool`: a named limit of what runs at once, given by reference (source: API, choice 22)."""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stepwell.kernel import check
from stepwell.model import rows
from stepwell.model.errors import Invalid

log = logging.getLogger("stepwell.functions")
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

    @property
    def limits(self) -> tuple[int | None, int | None, str | None]:
        """All that it limits."""
        return self.limit, self.per_key, self.rate


class NamedPools:
    """The pools with limits that an app's functions name. Raises Invalid where two of one name have other limits."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._pools: dict[str, Pool] = {}
        self._told: set[str] = set()
        for pool in pools:
            if pool.limits != (None, None, None):
                other = self._pools.setdefault(pool.name, pool)
                if other.limits != pool.limits:
                    raise Invalid(f"{other!r} and {pool!r} are two pools of one name", hint=_ONE, field="pool")

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def held(self, pool: Pool) -> Pool:
        """The pool whose limits hold where a call gives this one: that of the functions, if they name it."""
        named = self._pools.get(pool.name, pool)
        if pool.limits not in (named.limits, (None, None, None)) and pool.name not in self._told:
            self._told.add(pool.name)
            log.warning("a call gives %r, and a function names %r, which holds. %s", pool, named, _ONE)
        return named


_ONE = "Make one Pool and give it to all that share it, or rename one."
NONE_NAMED = NamedPools(())


def pool_row(pool: Pool, scope: str) -> rows.Pool:
    """A pool as the store keeps it."""
    rate_ms = pool.rate_ms
    return rows.Pool(scope, pool.name, pool.limit, pool.per_key, pool.rate_count, rate_ms)


def _rate(rate: Any) -> tuple[int, int]:
    found = _RATE.fullmatch(rate.replace(" ", "")) if isinstance(rate, str) else None
    if found is None or found[2] not in _UNITS or int(found[1]) == 0:
        hint = 'A number for a time: "10/s", "600/min", "1000/hour".'
        raise Invalid(f"{rate!r:.80} is not a rate", field="rate", hint=hint)
    check.whole("the number of a rate", int(found[1]), 1, MAX_LIMIT)
    return int(found[1]), _UNITS[found[2]]

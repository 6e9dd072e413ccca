"""Pools: named limits, as rows."""

from stepwell.kernel import check
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import SetPool, Worked
from stepwell.model.rows import Pool


def set_pool(unit: Unit, command: SetPool, now: int) -> Worked:
    """`SetPool`: a new rate starts with a full bucket; no limit, rate or pause at all removes the row."""
    pool = command.pool
    check.name("pool", pool.name)
    check.name("scope", pool.scope)
    for field, value in (("limit", pool.limit), ("key_limit", pool.key_limit), ("rate", pool.rate)):
        if value is not None and not 1 <= value <= 1_000_000:
            raise errors.Invalid(f"{field} of pool {pool.name!r} must be from 1 to 1,000,000, not {value}", field=field)
    if not 1 <= pool.rate_ms <= 86_400_000:
        raise errors.Invalid("rate_ms must be from 1 to 86,400,000", field="rate_ms")
    key = (pool.scope, pool.name)
    old = unit.pools.get(key)
    if command.limits_only and old is not None:
        if _limits(old) == _limits(pool):
            return Worked(0)
        pool.paused = old.paused
    if pool.limit is None and pool.key_limit is None and pool.rate is None and not pool.paused:
        if old is not None:
            unit.pools.drop(key)
        return Worked(0)
    pool.tokens, pool.refilled_at = float(pool.rate or 0), now
    unit.pools.put(key, pool)
    return Worked(1)


def _limits(pool: Pool) -> tuple[int | None, int | None, int | None, int]:
    return pool.limit, pool.key_limit, pool.rate, pool.rate_ms if pool.rate else 0

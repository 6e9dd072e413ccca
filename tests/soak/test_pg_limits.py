"""Limited pools and rates before three servers on PostgreSQL, which are killed in between: never over, and nobody waits
behind the key with 100,000 tasks. What SOAK_SECONDS is too short for is as much smaller.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.crash.crowd import KEYS, RUSH_S, Crowd, share_of, soak_s
from tests.crash.crowd_app import LIMIT, RATE
from tests.crash.crowd_judge import (
    BEGINS,
    beyond_rate,
    check_limits,
    entries_of,
    overtakings,
    waits,
)
from tests.crash.pg_judge import check_log
from tests.crash.pg_process import LEASE_MS
from tests.support import assert_lawful

#: What all of it takes.
FULL_S = 600
HEAP, VISITS_S, RUSH, TICKS_S = 100_000, 60, 20, 60
#: How much later than twice its lease a dead server's slot is free at the latest: who stood still sweeps later.
SWEPT_MS = 5_000


@pytest.fixture
def share() -> float:
    return min(1.0, soak_s() / FULL_S)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    crowd = Crowd(tmp_path)
    yield crowd
    crowd.close()


def told(name: str, seconds: list[float]) -> str:
    p50, p99, most = (1_000 * share_of(seconds, share) for share in (0.5, 0.99, 1))
    return f"{name} {p50:.0f}/{p99:.0f}/{most:.0f} ms"


@pytest.mark.soak
def test_nobody_waits_behind_the_key_with_100_000_tasks_and_no_limit_is_passed(crowd: Crowd, share: float) -> None:
    """Newcomers come by alone, while the heap comes, and before the heap; then a rush, and each server dies in it."""
    count, visit_s, each = int(HEAP * share), max(6, VISITS_S * share), max(4, int(RUSH * share))
    took: dict[str, float] = {}

    async def main() -> None:
        async with crowd.open() as sw:
            await crowd.visit(sw, "alone", visit_s)
            took["pile"], _ = await asyncio.gather(crowd.pile(sw, count), crowd.visit(sw, "amid", visit_s / 2))
            await crowd.visit(sw, "behind", visit_s)
            await crowd.all_ended("alone", "amid", "behind")
            began = time.monotonic()
            await asyncio.gather(crowd.rush(sw, each), die())
            await crowd.all_ended("rush")
            took["rush"] = time.monotonic() - began

    async def die() -> None:
        for place in crowd.places:
            await asyncio.sleep(each * len(KEYS) * RUSH_S / LIMIT / 4)
            await crowd.kill(place)

    asyncio.run(main())
    tight, default = (entries_of(crowd.server.conninfo, pool) for pool in ("tight", "default"))
    held = check_limits(tight, crowd.lines, crowd.deaths)
    assert held.most == LIMIT
    print(f"\nheap of {count:,} in {took['pile']:.0f} s; {held.leases:,} leases, {held.most} at once at most")
    for when in ("alone", "amid", "behind"):
        print("a start", told(when, crowd.start_s[when]))
    found = [
        [waits(entries, f"{when}-{name}") for when in ("alone", "amid", "behind")]
        for name, entries in (("keyed", tight), ("plain", default))
    ]
    for name, (alone, amid, behind) in zip(("keyed", "plain"), found, strict=True):
        print(f"{name}, p50/p99/max:", told("alone", alone), told("amid", amid), told("behind", behind))
    for alone, _, behind in found:  # behind a heap of 10,000 somebody would wait for 500 s
        assert share_of(behind, 0.5) < max(0.3, 3 * share_of(alone, 0.5))
        assert share_of(behind, 0.99) < max(1, 3 * share_of(alone, 0.99))
    check_rush(crowd, held.expired_ms, took["rush"], each)
    check_log(crowd.server.log)
    crowd.drop_untouched()
    assert_lawful(open_store(crowd.server.url, Settings()))
    assert overtakings(tight) == []


def check_rush(crowd: Crowd, expired_ms: list[int], seconds: float, each: int) -> None:
    """The slots of the dead came back, and each key had its share."""
    alone_s = each * len(KEYS) * RUSH_S / LIMIT
    print(
        f"rush of {each * len(KEYS)} in {seconds:.1f} s ({alone_s:.1f} s of work); leases of the dead: {expired_ms} ms"
    )
    assert len(crowd.deaths) == 3
    assert expired_ms
    assert all(LEASE_MS <= ms < 2 * LEASE_MS + SWEPT_MS for ms in expired_ms), expired_ms
    assert seconds < 4 * alone_s + 3 * (LEASE_MS + SWEPT_MS) / 1_000


@pytest.mark.soak
def test_no_span_of_time_has_more_leases_than_a_bucket_and_what_flows_into_it(crowd: Crowd, share: float) -> None:
    """Three servers on one rate; each dies in between, and a new one fills no bucket."""
    count = int(RATE * max(8, TICKS_S * share))

    async def main() -> None:
        async with crowd.open() as sw:
            await crowd.ticks(sw, count)
            for place in crowd.places:
                await asyncio.sleep(1)
                await crowd.kill(place)
            await crowd.all_ended("tick")

    asyncio.run(main())
    entries = entries_of(crowd.server.conninfo, "metered")
    begun = [one for one in entries if one.kind == BEGINS]
    assert len(begun) >= count
    span_s = (begun[-1].at - begun[0].at) / 1_000
    print(f"\n{len(begun)} leases in {span_s:.1f} s, {(len(begun) - RATE) / span_s:.1f} a second of {RATE}")
    assert beyond_rate(entries) <= 1e-6
    assert len(begun) - RATE > 0.8 * RATE * span_s - RATE
    check_log(crowd.server.log)

"""Pools: limits, limits per key, rates, pauses; nothing that cannot run stands in the way of what can."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled
from stepwell.model.rows import Pool
from tests.support import Bench


def pool(bench: Bench, name: str = "p", scope: str = "main", **limits: int | bool) -> None:
    row = Pool(scope, name)
    for field, value in limits.items():
        setattr(row, field, value)
    bench.do(c.SetPool(row))


def starts(bench: Bench, *names: str, **fields: str | int) -> None:
    for name in names:
        bench.clock.tick(1)
        bench.start(name, **{"pool": "p", **fields})


def ids(leased: list[c.Leased]) -> list[str]:
    return [one.run.id for one in leased]


def test_no_more_are_leased_at_once_than_the_limit(bench: Bench) -> None:
    pool(bench, limit=2)
    starts(bench, "a", "b", "c")
    first, _ = bench.claim()
    assert ids(bench.claim()) == []
    bench.do(c.Finish(first.lease, 1, c.Completed()))
    assert ids(bench.claim()) == ["c"]


def test_claims_of_one_batch_share_the_limit(bench: Bench) -> None:
    pool(bench, limit=2)
    starts(bench, "a", "b", "c")
    replies = bench.all(*(c.Claim("w", f"s{i}") for i in range(4)))
    assert [ids(reply.tasks) for reply in replies] == [["a"], ["b"], [], []]


def test_a_slot_that_is_freed_can_be_taken_in_the_same_batch(bench: Bench) -> None:
    pool(bench, limit=1, key_limit=1)
    starts(bench, "a", "b", pool_key="k")
    (task,) = bench.claim()
    _, claimed = bench.all(c.Finish(task.lease, 1, c.Completed()), c.Claim("w", "s"))
    assert ids(claimed.tasks) == ["b"]


@pytest.mark.parametrize("ending", ["finish", "park", "terminate", "hold", "expire", "death"])
def test_every_end_of_a_lease_frees_its_slot(bench: Bench, ending: str) -> None:
    pool(bench, limit=1)
    starts(bench, "a")
    (task,) = bench.claim()
    starts(bench, "b")
    bench.clock.tick(200_000 if ending == "expire" else 1)
    ways: dict[str, c.Command] = {
        "finish": c.Finish(task.lease, 1, c.Completed()),
        "park": c.Park(task.lease, 1, 9, ("signal:x",)),
        "terminate": c.Terminate("a"),
        "hold": c.HoldRun("a"),
        "expire": c.Sweep(),
        "death": c.Bury("w"),
    }
    bench.do(ways[ending])
    assert ids(bench.claim()) == ["b"]


def test_a_full_key_blocks_only_its_own_and_is_promoted_in_order(bench: Bench) -> None:
    pool(bench, key_limit=1)
    starts(bench, "a1", "a2", "a3", pool_key="a")
    starts(bench, "b1", pool_key="b")
    starts(bench, "free")
    claimed = bench.do(c.Claim("w", "s", limit=10))
    assert (ids(claimed.tasks), claimed.more) == (["a1", "b1", "free"], True)
    assert [bench.task(name).state for name in ("a2", "a3")] == ["blocked", "blocked"]
    assert bench.do(c.Promote()).count == 0
    bench.do(c.Finish(claimed.tasks[0].lease, 1, c.Completed()))
    assert bench.commits[-1].freed
    assert bench.do(c.Promote()).count == 1
    assert ids(bench.claim()) == ["a2"]
    assert bench.task("a3").state == "blocked"


def test_a_long_queue_of_one_key_does_not_starve_others(bench: Bench) -> None:
    pool(bench, key_limit=1)
    starts(bench, *(f"a{i}" for i in range(30)), pool_key="a")
    starts(bench, "b", pool_key="b")
    seen: list[str] = []
    for _ in range(10):
        reply = bench.do(c.Claim("w", bench.secret(), limit=4))
        seen += ids(reply.tasks)
        if not reply.more:
            break
    assert seen == ["a0", "b"]


def test_lifting_a_limit_promotes_everybody(bench: Bench) -> None:
    pool(bench, key_limit=1)
    starts(bench, "a1", "a2", "a3", pool_key="a")
    bench.claim()
    pool(bench)
    bench.do(c.Promote())
    assert ids(bench.claim()) == ["a2", "a3"]


def test_a_rate_gives_so_many_a_time_and_a_full_bucket_first(bench: Bench) -> None:
    pool(bench, rate=2, rate_ms=1_000)
    starts(bench, *"abcdef")
    assert ids(bench.claim()) == ["a", "b"]
    bench.clock.tick(499)
    assert ids(bench.claim()) == []
    bench.clock.tick(1)
    assert ids(bench.claim()) == ["c"]
    bench.clock.tick(3_600_000)
    assert ids(bench.claim()) == ["d", "e"]


def test_a_clock_that_is_put_back_stops_no_rate(bench: Bench) -> None:
    pool(bench, rate=1, rate_ms=1_000)
    starts(bench, *"abcd")
    assert ids(bench.claim()) == ["a"]
    bench.clock.tick(-600_000)
    assert ids(bench.claim()) == [], "nobody knows how long it was, so what was left is left"
    bench.clock.tick(999)
    assert ids(bench.claim()) == []
    bench.clock.tick(1)
    assert ids(bench.claim()) == ["b"]


def test_a_start_that_leases_follows_a_clock_that_is_put_back(bench: Bench) -> None:
    pool(bench, rate=1, rate_ms=1_000)
    starts(bench, "a")
    assert ids(bench.claim()) == ["a"]
    bench.clock.tick(-600_000)
    assert bench.do(c.StartRun("b", "wf", pool="p", claim_for=c.ClaimFor("w", 60_000, "s"))).claim is None
    bench.clock.tick(1_000)
    assert ids(bench.claim()) == ["b"]


def test_a_time_that_is_a_little_behind_gives_no_more_than_the_rate(bench: Bench) -> None:
    """A lane that waited for the pool has an older time than the one that had it."""
    pool(bench, rate=1, rate_ms=6_000)
    starts(bench, *"abc")
    assert ids(bench.claim()) == ["a"]
    bench.clock.tick(-5_000)
    assert ids(bench.claim()) == []
    bench.clock.tick(6_000)
    assert ids(bench.claim()) == []
    bench.clock.tick(5_000)
    assert ids(bench.claim()) == ["b"]


def test_a_paused_pool_gives_nothing_until_it_goes_on(bench: Bench) -> None:
    pool(bench, paused=True)
    starts(bench, "a")
    bench.start("other")
    assert ids(bench.claim()) == ["other"]
    pool(bench)
    assert ids(bench.claim()) == ["a"]


def test_a_pool_of_another_scope_is_another_pool(bench: Bench) -> None:
    pool(bench, limit=1)
    starts(bench, "a", "b")
    starts(bench, "c", "d", scope="b")
    assert sorted(ids(bench.claim())) in (["a", "c", "d"], ["b", "c", "d"])


def test_actions_count_in_their_own_pool(bench: Bench) -> None:
    pool(bench, limit=1)
    bench.record(bench.turn().lease, 1, *(ActionScheduled("m:f", pool="p", priority=-i) for i in range(3)))
    (first,) = bench.claim()
    assert first.key == "k2"
    bench.do(c.Fail(first.lease, 1, "{}"))
    assert [one.key for one in bench.claim()] == ["k1"]


def fused(bench: Bench, name: str, **fields: str) -> bool:
    claim_for = c.ClaimFor("w", 60_000, bench.secret())
    return bench.start(name, claim_for=claim_for, **{"pool": "p", **fields}).claim is not None


def test_a_start_is_fused_only_with_a_free_slot(bench: Bench) -> None:
    pool(bench, limit=2, key_limit=1)
    assert fused(bench, "a", pool_key="x")
    assert not fused(bench, "b", pool_key="x")
    assert bench.task("b").state == "ready"
    bench.do(c.Terminate("b"))
    assert fused(bench, "c", pool_key="y")
    assert not fused(bench, "d", pool_key="z")


def test_a_start_is_not_fused_past_what_is_ready_before_it(bench: Bench) -> None:
    bench.start("first", pool="p")
    assert not fused(bench, "second")
    assert ids(bench.claim()) == ["first", "second"]
    assert fused(bench, "third")
    bench.start("elsewhere")
    assert fused(bench, "fourth")
    one, two = bench.all(
        c.StartRun("plain", "wf", pool="p"),
        c.StartRun("late", "wf", pool="p", claim_for=c.ClaimFor("w", 60_000, "s")),
    )
    assert (one.created, two.claim) == (True, None)


def test_a_start_is_not_fused_in_a_pause_or_without_a_token(bench: Bench) -> None:
    pool(bench, rate=1)
    assert fused(bench, "a")
    assert not fused(bench, "b")
    pool(bench, "q", paused=True)
    assert not fused(bench, "c", pool="q")


@pytest.mark.parametrize(
    "limits",
    [{"limit": 0}, {"limit": 1_000_001}, {"key_limit": 0}, {"rate": 0}, {"rate": 1, "rate_ms": 0}, {"rate": -1}],
    ids=str,
)
def test_limits_out_of_range_are_invalid(bench: Bench, limits: dict[str, int]) -> None:
    row = Pool("main", "p")
    for field, value in limits.items():
        setattr(row, field, value)
    bench.refused(c.SetPool(row), errors.Invalid)
    with bench.reader() as reader:
        assert reader.pools("main") == []


def test_a_pool_without_any_limit_is_no_row(bench: Bench) -> None:
    pool(bench)
    pool(bench, limit=3)
    with bench.reader() as reader:
        assert [row.limit for row in reader.pools("main")] == [3]
    pool(bench)
    with bench.reader() as reader:
        assert reader.pools("main") == []


def test_promotion_gets_to_every_key_in_bounded_steps(bench: Bench) -> None:
    pool(bench, key_limit=1)
    keys = [f"{number:02}" for number in range(25)]
    for key in keys:
        starts(bench, f"a{key}", pool_key=key)
    first = bench.claim()
    for key in keys:
        starts(bench, f"b{key}", pool_key=key)
    assert bench.claim() == []
    for held in first:
        if held.run.pool_key in ("07", "24"):
            bench.do(c.Finish(held.lease, 1, c.Completed()))
    moved, after, looks = [], ("", "", ""), 0
    while looks == 0 or after != ("", "", ""):
        worked = bench.do(c.Promote(after=after, limit=4))
        moved.append(worked.count)
        after, looks = worked.after or ("", "", ""), looks + 1
    assert (moved, looks) == ([0, 1, 0, 0, 0, 0, 1], 7)
    assert ids(bench.claim()) == ["b07", "b24"]


def test_limits_alone_leave_a_pause_and_a_bucket_as_they_are(bench: Bench) -> None:
    pool(bench, rate=1, rate_ms=60_000)
    starts(bench, "a", "b")
    assert ids(bench.claim()) == ["a"]
    bench.do(c.SetPool(Pool("main", "p", rate=1, rate_ms=60_000), limits_only=True))
    assert ids(bench.claim()) == []
    pool(bench, rate=1, rate_ms=60_000, paused=True)
    bench.do(c.SetPool(Pool("main", "p", limit=3), limits_only=True))
    with bench.reader() as reader:
        (there,) = reader.pools("main")
    assert (there.limit, there.rate, there.paused) == (3, None, True)


def test_a_start_frees_no_slot_of_its_key(bench: Bench) -> None:
    """Else each of a thousand starts would have the promoter wait for the pool, and what comes next behind it."""
    bench.do(c.SetPool(Pool("main", "p", key_limit=1)))
    bench.start(pool="p", pool_key="k")
    assert not bench.commits[-1].freed
    (leased,) = bench.claim()
    assert not bench.commits[-1].freed
    bench.do(c.Finish(leased.lease, 1, c.Completed("1")))
    assert bench.commits[-1].freed == {("main", "p", "k")}

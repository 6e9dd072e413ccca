"""Order within a limited key: nobody passes one that waits longer, also in the moment in which a slot comes free."""

from stepwell.model import commands as c
from stepwell.model.rows import Pool
from tests.support import Bench


def limit(bench: Bench, key_limit: int) -> None:
    bench.do(c.SetPool(Pool("main", "p", key_limit=key_limit)))


def start(bench: Bench, name: str, **fields: int | str) -> c.Started:
    bench.clock.tick(1)
    return bench.start(name, pool="p", pool_key="k", **fields)


def fused(name: str, priority: int = 0) -> c.StartRun:
    return c.StartRun(name, "wf", pool="p", pool_key="k", priority=priority, claim_for=c.ClaimFor("w", 60_000, name))


def claim(bench: Bench, most: int = 100) -> list[str]:
    return [one.run.id for one in bench.claim(most)]


def crowd(bench: Bench, names: str, *, key_limit: int = 1) -> list[c.Leased]:
    """Those that a key has room for are leased, the others are blocked."""
    limit(bench, key_limit)
    for name in names:
        start(bench, name)
    leased = bench.claim()
    assert [bench.task(name).state for name in names[key_limit:]] == ["blocked"] * (len(names) - key_limit)
    return leased


def end(leased: c.Leased) -> c.Finish:
    return c.Finish(leased.lease, 1, c.Completed())


def test_a_newcomer_does_not_get_the_slot_that_a_blocked_one_waits_for(bench: Bench) -> None:
    (first,) = crowd(bench, "abc")
    bench.do(end(first))
    start(bench, "new")
    assert claim(bench) == []
    assert bench.task("new").state == "blocked"
    assert bench.commits[-1].freed == {("main", "p", "k")}, "so the promoter looks"
    served = []
    for _ in range(3):
        bench.do(c.Promote((("main", "p", "k"),)))
        (leased,) = bench.claim()
        served.append(leased.run.id)
        bench.do(end(leased))
    assert served == ["b", "c", "new"]


def test_nor_does_one_that_is_leased_as_it_starts(bench: Bench) -> None:
    (first,) = crowd(bench, "ab")
    bench.do(end(first))
    assert bench.do(fused("new")).claim is None
    bench.do(c.Promote())
    assert claim(bench) == ["b"]


def test_nor_in_the_batch_that_ends_the_lease(bench: Bench) -> None:
    (first,) = crowd(bench, "ab")
    start(bench, "new")
    _, claimed, started = bench.all(end(first), c.Claim("w", "s"), fused("newer"))
    assert (claimed.tasks, started.claim) == ([], None)


def test_nor_in_the_batch_in_which_the_others_are_blocked(bench: Bench) -> None:
    (first,) = crowd(bench, "a")
    start(bench, "b", requires="x")
    start(bench, "c", requires="y")
    replies = bench.all(c.Claim("w", "s", requires=("x",)), end(first), c.Claim("w", "t", requires=("y",)))
    assert (replies[0].tasks, replies[2].tasks) == ([], [])
    bench.do(c.Promote())
    assert claim(bench) == ["b"]


def test_one_that_comes_before_the_blocked_ones_goes_at_once(bench: Bench) -> None:
    (first,) = crowd(bench, "ab")
    bench.do(end(first))
    start(bench, "urgent", priority=-1)
    assert claim(bench) == ["urgent"]
    bench.do(c.Terminate("urgent"))
    assert bench.do(fused("more urgent", priority=-2)).claim is not None


def test_other_keys_and_pools_go_on(bench: Bench) -> None:
    (first,) = crowd(bench, "ab")
    bench.do(end(first))
    bench.start("other key", pool="p", pool_key="l")
    bench.start("no key", pool="p")
    bench.start("other pool", pool="q", pool_key="k")
    bench.start("other scope", scope="b", pool="p", pool_key="k")
    assert sorted(claim(bench)) == ["no key", "other key", "other pool", "other scope"]


def test_who_comes_back_has_its_place_and_not_the_first(bench: Bench) -> None:
    one, two = crowd(bench, "abcd", key_limit=2)
    bench.clock.tick(1)
    bench.all(c.Release(one.lease, 1), end(two))
    assert claim(bench) == [], "a was ready later than c and d"
    bench.do(c.Promote())
    assert claim(bench) == ["c", "d"]


def test_a_blocked_one_that_ends_holds_up_nobody(bench: Bench) -> None:
    (first,) = crowd(bench, "ab")
    bench.all(end(first), c.Terminate("b"))
    assert bench.do(fused("new")).claim is not None


def test_a_limit_that_is_lifted_holds_up_nobody(bench: Bench) -> None:
    crowd(bench, "ab")
    bench.do(c.SetPool(Pool("main", "p")))
    start(bench, "new")
    assert claim(bench) == ["new"]
    bench.do(c.Promote())
    assert claim(bench) == ["b"]

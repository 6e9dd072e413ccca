"""What commands of one batch do to each other: the same as if they had come one after another."""

from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.rows import Pool
from stepwell.store.memory import MemoryStore
from tests.support import Bench


def claim(request: str, limit: int = 5) -> c.Claim:
    return c.Claim("w", request, limit=limit)


def test_a_limit_set_in_the_batch_of_a_claim_holds_from_the_next_one_on(bench: Bench) -> None:
    """Another lane may be claiming, and cannot see the limit yet."""
    for number in range(5):
        bench.start(f"r{number}")
    _, first, second = bench.all(c.SetPool(Pool("main", "default", limit=2)), claim("a", 1), claim("b"))
    assert (first.tasks, first.more, second.tasks) == ([], True, [])
    assert (len(bench.claim()), bench.claim()) == (2, [])


def test_a_key_limit_set_in_the_batch_of_a_claim_holds_from_the_next_one_on(bench: Bench) -> None:
    for number in range(4):
        bench.start(f"r{number}", pool_key="ab"[number % 2])
    _, claimed = bench.all(c.SetPool(Pool("main", "default", key_limit=1)), claim("a"))
    assert (claimed.tasks, claimed.more) == ([], True)
    assert sorted(one.run.pool_key or "" for one in bench.claim()) == ["a", "b"]
    assert bench.claim() == []


def test_leases_of_before_count_under_a_limit_set_with_a_claim(bench: Bench) -> None:
    for number in range(3):
        bench.start(f"r{number}", pool_key="a")
    bench.claim(1)
    _, claimed = bench.all(c.SetPool(Pool("main", "default", limit=2, key_limit=1)), claim("a"))
    assert claimed.tasks == []


#: What makes a task ready that was there before a start, and how it got to where it is.
AHEAD: dict[str, c.Command] = {
    "release": c.ReleaseRun("old"),
    "timer": c.Fire(),
    "given back": c.Release(c.Lease(1, 1, 1, ""), 1),
    "promotion": c.Promote(),
    "restart": c.Restart("old"),
    "replacement": c.StartRun("old", "wf", pool="p", reuse="replace"),
    "signal": c.Signal("old", "s"),
    "sweep": c.Sweep(),
}


def prepare(bench: Bench, how: str) -> c.Command:
    """A run `old` that the command will make ready."""
    if how in ("release", "timer"):
        bench.start("old", pool="p", due_at=bench.clock.now + 1 if how == "timer" else None)
        bench.clock.tick(1)
        bench.all(*[c.HoldRun("old")] * (how == "release"))
        return AHEAD[how]
    if how == "promotion":
        bench.do(c.SetPool(Pool("main", "p", key_limit=1)))
        blocker = bench.turn("blocker", pool="p", pool_key="k").lease
        bench.start("old", pool="p", pool_key="k")
        assert bench.claim() == []
        bench.do(c.Finish(blocker, 1, c.Completed()))
        return AHEAD[how]
    lease = bench.turn("old", pool="p").lease
    if how in ("restart", "replacement"):
        bench.do(c.Finish(lease, 1, c.Completed()))
    elif how == "signal":
        bench.do(c.Park(lease, 1, 9, ("signal:s",)))
    elif how == "sweep":
        bench.clock.tick(200_000)
    return c.Release(lease, 1) if how == "given back" else AHEAD[how]


@pytest.mark.parametrize("how", AHEAD)
def test_a_fused_start_does_not_overtake_what_got_ready_in_its_batch(bench: Bench, how: str) -> None:
    command = prepare(bench, how)
    start = c.StartRun("new", "wf", pool="p", claim_for=c.ClaimFor("w", 60_000, "s"))
    # A sweep is decided last, whatever comes after it.
    replies = bench.all(command, start)
    assert not any(isinstance(reply, errors.StepwellError) for reply in replies), replies
    assert (replies[1].claim is None) == (how != "sweep")
    assert "old" in [one.run.id for one in bench.claim()]


def bad_commands() -> list[c.Command]:
    odd: Any = ["a list"]
    return [
        c.Signal("r0", "go", "1", dedup=""),
        c.Signal("r0", "go", "1", dedup="x" * 300),
        c.StartRun("y", "wf", priority=1 << 70),
        c.StartRun("y", "wf", due_at=1 << 70),
        c.StartRun(odd, "wf"),
        c.StartRun("y", odd),
        c.Signal(odd, "s"),
        c.Claim("w", "", limit=1),
        c.Claim("w", "q", limit=0),
        c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s", priority=1 << 70),)),
    ]


@pytest.mark.parametrize("place", range(len(bad_commands())))
def test_one_bad_argument_in_a_batch_of_many_costs_no_further_commit(place: int) -> None:
    bench, bad = Bench(MemoryStore()), bad_commands()[place]
    good = [c.StartRun(f"r{number}", "wf") for number in range(100)]
    replies = bench.all(*good[:50], bad, *good[50:])
    assert isinstance(replies.pop(50), errors.Invalid | errors.TooLarge)
    assert all(reply.created for reply in replies)
    assert len(bench.commits) == 1

"""Numbers that somebody sends have a range, which holds at its ends; a retry policy can be used or is refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stepwell.kernel.check import LAST_MS, LEASE_MS, PRIORITY
from stepwell.kernel.tasks import RetryPolicy
from stepwell.kernel.writes import MAX_DELAY_MS
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, raw
from tests.support import Bench

Make = Callable[[c.Lease, Any], c.Command]
SHORTEST, LONGEST = LEASE_MS
TIME = (0, LAST_MS)
MAKES: dict[str, tuple[Make, int, int]] = {
    "lease of a claim": (lambda lease, n: c.Claim("w", "q", lease_ms=n), SHORTEST, LONGEST),
    "limit of a claim": (lambda lease, n: c.Claim("w", "q", limit=n), 1, 1_000),
    "lease of a sync": (lambda lease, n: c.Sync("w", (c.Beat(lease),), n), SHORTEST, LONGEST),
    "lease of a fused start": (
        lambda lease, n: c.StartRun("x", "wf", claim_for=c.ClaimFor("w", n, "s")),
        SHORTEST,
        LONGEST,
    ),
    "delay of a release": (lambda lease, n: c.Release(lease, 1, n), 0, MAX_DELAY_MS),
    "time of a park": (lambda lease, n: c.Park(lease, 1, 9, ("timer:t",), n, "t"), *TIME),
    "time of a start": (lambda lease, n: c.StartRun("x", "wf", due_at=n), *TIME),
    "deadline of a start": (lambda lease, n: c.StartRun("x", "wf", deadline=n), *TIME),
    "time of a replacement": (lambda lease, n: c.StartRun("r", "wf", reuse="replace", due_at=n), *TIME),
    "priority of a start": (lambda lease, n: c.StartRun("x", "wf", priority=n), *PRIORITY),
    "priority of a match": (lambda lease, n: accept(c.Match("f", "s", priority=n)), *PRIORITY),
    "time of an action": (lambda lease, n: schedule(lease, due_at=n), *TIME),
    "priority of an action": (lambda lease, n: schedule(lease, priority=n), *PRIORITY),
}


def accept(match: c.Match) -> c.Command:
    return c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (match,))


def schedule(lease: c.Lease, **fields: Any) -> c.Command:
    return c.Record(lease, 1, 9, (c.Draft(ActionScheduled("m:f", **fields), "k"),))


@pytest.mark.parametrize("what", MAKES)
def test_a_number_out_of_its_range_is_invalid(bench: Bench, what: str) -> None:
    make, low, high = MAKES[what]
    lease = bench.turn().lease
    for bad in (low - 1, high + 1, 1 << 70, -(1 << 70), 1.5, True, "1"):
        bench.refused(make(lease, bad), errors.Invalid)
    assert (bench.kinds(), bench.task().state) == (["run.created", "attempt.started"], "leased")


@pytest.mark.parametrize("end", [1, 2], ids=["low", "high"])
@pytest.mark.parametrize("what", MAKES)
def test_a_number_at_the_end_of_its_range_is_fine(bench: Bench, what: str, end: int) -> None:
    bench.do(MAKES[what][0](bench.turn().lease, MAKES[what][end]))


@pytest.mark.parametrize(("worker", "secret"), [("", "s"), ("w" * 129, "s"), ("w", ""), ("w", "s" * 300), ("w\n", "s")])
def test_a_fused_start_says_who_it_is_and_has_a_secret(bench: Bench, worker: str, secret: str) -> None:
    reply = bench.all(c.StartRun("x", "wf", claim_for=c.ClaimFor(worker, 60_000, secret)))[0]
    assert isinstance(reply, errors.Invalid | errors.TooLarge)


UNUSABLE: tuple[dict[str, Any], ...] = (
    {"max_attempts": "x"},
    {"max_attempts": 0},
    {"max_attempts": 5, "initial_ms": -5_000},
    {"initial_ms": 1 << 70},
    {"max_ms": -1},
    {"factor": 0.5},
    {"factor": 1e10},
    {"factor": "2"},
)


@pytest.mark.parametrize("policy", UNUSABLE, ids=str)
def test_a_retry_policy_that_cannot_be_used_is_not_stored(bench: Bench, policy: dict[str, Any]) -> None:
    text = msgspec.json.encode(policy).decode()
    lease = bench.turn().lease
    assert "retry" in str(bench.refused(accept(c.Match("f", "s", retry=text)), errors.Invalid))
    assert "retry" in str(bench.refused(schedule(lease, retry=raw(text)), errors.Invalid))
    with bench.reader() as reader:
        assert reader.scan_events() == []
    assert bench.kinds() == ["run.created", "attempt.started"]


def test_the_steepest_policy_does_not_overflow(bench: Bench) -> None:
    steepest = RetryPolicy(max_attempts=1_000_000, initial_ms=365 * 86_400_000, factor=1_000.0, max_ms=1_000)
    assert [steepest.delay_ms(failures, 0.999) for failures in (1, 2, 64, 65, 999_999)] == [1_000] * 5
    policy = raw('{"max_attempts":100,"factor":1000,"initial_ms":4,"max_ms":10}')
    bench.do(schedule(bench.turn().lease, retry=policy))
    for _ in range(90):
        bench.clock.tick(20)
        bench.do(c.Fire())
        (action,) = bench.claim()
        assert bench.do(c.Fail(action.lease, 1, "{}")).state == "due"

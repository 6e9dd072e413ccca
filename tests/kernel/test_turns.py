"""Fairness: a thousand waiting runs of one flow hold up nobody else, and a lower priority number still goes first."""

from typing import Any

from stepwell.model import commands as c
from tests.support import Bench


def fill(bench: Bench, flow: str, count: int, **more: Any) -> None:
    for number in range(count):
        match = c.Match(flow, "s", requires=f"flow:{flow}", **more)
        bench.do(c.AcceptEvent(c.NewEvent(f"{flow}{number}", "t", "2026", "h"), (match,)))
        bench.clock.tick(1)


def names(leased: list[c.Leased]) -> list[str]:
    return [one.run.name.partition("/")[0] for one in leased]


def test_flows_take_turns_in_one_claim(bench: Bench) -> None:
    fill(bench, "many", 100)
    fill(bench, "few", 2)
    assert sorted(names(bench.claim(limit=4))) == ["few", "few", "many", "many"]


def test_a_late_flow_is_not_behind_a_thousand_when_claims_are_small(bench: Bench) -> None:
    fill(bench, "many", 1_000)
    fill(bench, "few", 1)
    waited = next(turn for turn in range(1_000) if "few" in names(bench.claim(limit=1)))
    assert waited < 30, "a chance of one half each time"


def test_within_a_flow_the_oldest_goes_first(bench: Bench) -> None:
    fill(bench, "a", 5)
    events = [one.event.id for one in bench.claim(limit=5) if one.event is not None]
    assert events == ["a0", "a1", "a2", "a3", "a4"]


def test_a_lower_priority_number_goes_before_every_turn(bench: Bench) -> None:
    fill(bench, "late", 3, priority=5)
    fill(bench, "soon", 3, priority=-5)
    assert names(bench.claim(limit=3)) == ["soon"] * 3

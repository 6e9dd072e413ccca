"""How often a batch waits for the server: that costs more than most statements do, and others wait for its pools."""

from collections.abc import Iterator
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.store.port import Store
from stepwell.store.postgres.exchange import Exchange
from stepwell.store.postgres.sql import Anew
from tests.support import Bench

Texts = list[list[str]]


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Texts:
    """What goes to the server each time."""
    sent, send = Texts(), Exchange._all

    def seen(exchange: Exchange, *statements: Any) -> Any:
        sent.append([text for text, *_ in statements])
        return send(exchange, *statements)

    monkeypatch.setattr(Exchange, "_all", seen)
    return sent


def limited(bench: Bench, limits: dict[str, int], name: str = "p") -> None:
    if limits:
        bench.do(c.SetPool(Pool("main", name, limit=limits.get("limit"), key_limit=limits.get("key_limit"))))


def assert_planned_once(waits: Texts) -> None:
    assert not [text for texts in waits for text in texts if isinstance(text, Anew)]


@pytest.mark.parametrize(
    ("limits", "count"), [({}, 5), ({"limit": 9}, 6), ({"key_limit": 1}, 7), ({"limit": 9, "key_limit": 1}, 8)]
)
def test_how_often_a_claim_waits(bench: Bench, waits: Texts, limits: dict[str, int], count: int) -> None:
    limited(bench, limits)
    bench.do(c.StartRun("r", "wf", pool="p", pool_key="k"))
    waits.clear()
    assert bench.claim(pools=("p",))
    assert len(waits) == count
    assert_planned_once(waits)


@pytest.mark.parametrize(
    ("limits", "count"), [({}, 2), ({"limit": 9}, 3), ({"key_limit": 1}, 4), ({"limit": 9, "key_limit": 1}, 4)]
)
def test_how_often_a_start_that_leases_waits(bench: Bench, waits: Texts, limits: dict[str, int], count: int) -> None:
    limited(bench, limits)
    waits.clear()
    assert bench.do(c.StartRun("r", "wf", pool="p", pool_key="k", claim_for=c.ClaimFor("w", 60_000, "s"))).claim
    assert len(waits) == count
    assert_planned_once(waits)


def test_a_claim_waits_no_more_often_for_many_pools(bench: Bench, waits: Texts) -> None:
    for number in range(9):
        limited(bench, {"key_limit": 1}, f"p{number}")
        for run in range(2):
            bench.do(c.StartRun(f"r{number}{run}", "wf", pool=f"p{number}", pool_key=f"k{run}"))
    waits.clear()
    assert len(bench.claim(limit=30)) == 18
    assert len(waits) == 7

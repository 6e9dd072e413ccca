"""The doctor reads a journal of any length, in pages."""

import pytest

from stepwell.engine import doctor
from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 9])
def test_a_journal_of_several_pages_is_read_to_its_end(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is cut short has less than its run says, which breaks a law."""
    store = MemoryStore()
    bench = Bench(store)
    turn = bench.turn("r")
    steps = tuple(c.Draft(StepCompleted(), f"s{number}") for number in range(5))
    bench.do(c.Record(turn.lease, 1, turn.seen, steps))
    monkeypatch.setattr(doctor, "ENTRIES", page)
    assert_lawful(store, bench.settings)
    bench.close()

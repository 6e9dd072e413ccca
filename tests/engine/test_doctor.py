"""The doctor reads journals of any length, in pages, and many runs at a time."""

from contextlib import closing

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


@pytest.mark.parametrize("page", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("entries", [1, 4, 100])
def test_each_run_has_its_own_journal_however_the_pages_fall(
    page: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    with closing(Bench(store)) as bench:
        for name in "abcdefg":
            bench.turn(name)
        for name in "bf":
            bench.do(c.Cancel(name, "because"))
        broken, gone = (store.reader().run("main", name) for name in "de")
        assert broken
        assert gone
        del store.tables.entries[broken.no][-1], store.tables.runs[gone.no]
        monkeypatch.setattr(doctor, "PAGE", page)
        monkeypatch.setattr(doctor, "ENTRIES", entries)
        found = doctor.examine(store.reader(), bench.settings, checked := doctor.Checked())
        assert {(one.law, one.who.split()[0]) for one in found} == {(1, "d"), (1, "entries"), (1, "task")}
        assert checked.runs == 6

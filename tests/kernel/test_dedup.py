"""A signal with a dedup key is one signal, however often it is sent, and whatever became of its run."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful


def go(run_id: str = "r", payload: str = "1") -> c.Signal:
    return c.Signal(run_id, "go", payload, dedup="d")


def test_a_repeat_after_the_end_gets_the_first_answer(bench: Bench) -> None:
    lease = bench.turn().lease
    seq = bench.do(go()).seq
    bench.do(c.Finish(lease, 1, c.Completed()))
    assert bench.do(go()).seq == seq
    bench.refused(go(payload="2"), errors.Conflict)
    bench.refused(c.Signal("r", "go", "1", dedup="new"), errors.Ended)


@pytest.mark.parametrize("carried", [True, False], ids=["unread", "read"])
def test_a_repeat_to_a_run_that_continued_is_the_same_signal(bench: Bench, carried: bool) -> None:
    lease = bench.turn().lease
    seq = bench.do(go()).seq
    signals = (c.CarriedSignal("go", "1", "d"),) if carried else ()
    bench.do(c.Finish(lease, 1, c.Continued("r2", "null", seq, signals=signals)))
    again = bench.do(go())
    assert (again.seq, again.moved_to) == (seq, None)
    if carried:
        assert bench.do(go("r2")).seq == 2
        bench.refused(go("r2", "2"), errors.Conflict)
    assert bench.kinds("r2").count("signal.received") == carried
    assert bench.do(c.Signal("r", "go", "1", dedup="other")).moved_to == "r2"


def test_a_restart_that_keeps_a_signal_keeps_its_dedup_key(bench: Bench) -> None:
    bench.start()
    seq = bench.do(go()).seq
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", keep_seq=seq))
    assert bench.do(go()).seq == seq
    assert bench.kinds().count("signal.received") == 1


def test_after_a_restart_that_did_not_keep_it_the_signal_is_new(bench: Bench) -> None:
    bench.start()
    seq = bench.do(go()).seq
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", keep_seq=seq - 1))
    later = bench.do(go(payload="2")).seq
    assert later > seq
    assert bench.do(go(payload="2")).seq == later
    assert bench.kinds().count("signal.received") == 2


def test_signals_that_are_carried_are_bounded() -> None:
    bench = Bench(MemoryStore(), settings=Settings(payload_bytes=40_000, journal_bytes=65_536, journal_entries=100))
    lease = bench.turn().lease
    for size, count in ((50_000, 1), (35_000, 2), (1, 101)):
        signals = (c.CarriedSignal("go", '"' + "x" * size + '"'),) * count
        bench.refused(c.Finish(lease, 1, c.Continued("r2", "null", 99, signals=signals)), errors.TooLarge)
    bad = (c.CarriedSignal("go", "1", ""),)
    bench.refused(c.Finish(lease, 1, c.Continued("r2", "null", 99, signals=bad)), errors.Invalid)
    with bench.reader() as reader:
        assert reader.run("main", "r2") is None
    bench.do(c.Finish(lease, 1, c.Continued("r2", "null", 99, signals=(c.CarriedSignal("go", "1", "d"),) * 2)))
    assert_lawful(bench.store, bench.settings)

"""Retention: whole ended runs, then their events; the floor rises with them; nothing that is needed goes."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted
from stepwell.model.settings import Settings
from stepwell.store import load
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

DAY = 86_400_000
EVENT = c.NewEvent("e", "t", "2026", "h", '"' + "x" * 70_000 + '"')
MATCH = (c.Match("f", "s"),)


def test_ended_runs_go_whole_and_open_ones_stay(bench: Bench) -> None:
    lease = bench.turn("old", input='"' + "x" * 70_000 + '"').lease
    bench.do(c.Say(lease, 0, (("stdout", "x"),)))
    bench.record(lease, 1, ActionScheduled("m:f"))
    bench.do(c.Finish(lease, 2, c.Completed()))
    bench.start("open")
    ended_at = bench.clock.now
    bench.clock.tick(30 * DAY)
    assert bench.do(c.Prune()).count == 0
    bench.clock.tick(1)
    assert bench.do(c.Prune()).count == 1
    store = bench.store
    assert isinstance(store, MemoryStore)
    tables = store.tables
    assert [run.id for run in tables.runs.values()] == ["open"]
    assert (len(tables.tasks), len(tables.entries), tables.outputs, tables.blobs) == (1, 1, {}, {})
    with bench.reader() as reader:
        assert (reader.meta("floor:main"), reader.meta("floor:b")) == (ended_at, None)
    bench.refused(c.Restart("old"), errors.Unknown)
    bench.refused(c.Finish(lease, 2, c.Completed()), errors.Unknown)
    assert bench.start("old").created


def test_an_event_goes_only_after_its_runs(bench: Bench) -> None:
    (run_id,) = bench.do(c.AcceptEvent(EVENT, MATCH)).run_ids
    bench.do(c.AcceptEvent(c.NewEvent("alone", "t", "2026", "h")))
    bench.clock.tick(31 * DAY)
    bench.do(c.Prune())
    with bench.reader() as reader:
        assert [event.id for event in reader.scan_events()] == ["e"]
    bench.do(c.Terminate(run_id))
    bench.clock.tick(31 * DAY)
    bench.do(c.Prune())
    bench.do(c.Prune())
    with bench.reader() as reader:
        assert (reader.scan_events(), reader.scan_runs(), reader.orphans()) == ([], [], [])
    assert bench.do(c.AcceptEvent(EVENT, MATCH)).status == "accepted"


def test_pruning_is_bounded_and_says_that_there_is_more(bench: Bench) -> None:
    for i in range(5):
        bench.start(f"r{i}")
        bench.do(c.Terminate(f"r{i}"))
        bench.clock.tick(1)
    bench.clock.tick(31 * DAY)
    counts = []
    for _ in range(4):
        counts.append(bench.do(c.Prune(limit=2)))
        assert_lawful(bench.store)
    assert counts == [c.Worked(2, more=True), c.Worked(2, more=True), c.Worked(1, more=True), c.Worked(0)]


def test_requests_go_when_they_have_expired() -> None:
    bench = Bench(MemoryStore(), settings=Settings(request_retention_h=1, change_retention=1_000))
    bench.start()
    bench.do(c.Signal("r", "s", dedup="d"))
    bench.clock.tick(3_600_001)
    bench.do(c.Prune())
    assert bench.do(c.Signal("r", "s", dedup="d")).seq == 3


def test_changes_are_kept_in_number() -> None:
    bench = Bench(MemoryStore(), settings=Settings(change_retention=1_000))
    bench.start()
    for _ in range(1_010):
        bench.do(c.Signal("r", "s"))
    bench.do(c.Prune())
    with bench.reader() as reader:
        positions = [change.pos for change in reader.changes("main", after=0, limit=5_000)]
        assert (reader.floor("main"), reader.head("main")) == (positions[0] - 1, positions[-1])
    assert positions == list(range(12, 1_012))


@pytest.mark.parametrize("first", [True, False])
def test_a_restart_next_to_its_pruning_is_true_or_refused(bench: Bench, first: bool) -> None:
    bench.start()
    bench.do(c.Terminate("r"))
    bench.clock.tick(31 * DAY)
    batch = (c.Restart("r"), c.Prune()) if first else (c.Prune(), c.Restart("r"))
    reply = next(one for one in bench.all(*batch) if not isinstance(one, c.Worked))
    with bench.reader() as reader:
        run = reader.run("main", "r")
    assert (run is None) == isinstance(reply, errors.Unknown), reply


@pytest.mark.parametrize("first", [True, False])
def test_an_event_that_is_replayed_next_to_its_pruning_stays_or_is_unknown(bench: Bench, first: bool) -> None:
    bench.do(c.AcceptEvent(EVENT))
    bench.clock.tick(31 * DAY)
    batch = (c.ReplayEvent("e", MATCH), c.Prune()) if first else (c.Prune(), c.ReplayEvent("e", MATCH))
    reply = next(one for one in bench.all(*batch) if not isinstance(one, c.Worked))
    with bench.reader() as reader:
        event, runs = reader.event("main", "e"), reader.scan_runs()
    assert (event is not None) == bool(runs) == isinstance(reply, c.Accepted)


def test_a_parent_that_is_gone_misses_its_message(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ChildStarted("kid", "w"))
    (kid,) = bench.claim()
    bench.do(c.Terminate("r"))
    bench.do(c.Deliver())
    bench.clock.tick(31 * DAY)
    bench.do(c.Prune())
    bench.do(c.Finish(kid.lease, 1, c.Canceled()))
    assert bench.do(c.Deliver()).count == 1
    assert bench.do(c.Deliver()).count == 0


def events_left(bench: Bench) -> list[str]:
    with bench.reader() as reader:
        return [event.id for event in reader.scan_events()]


def test_an_event_goes_in_the_commit_of_its_last_run(bench: Bench) -> None:
    first, second = bench.do(c.AcceptEvent(EVENT, (*MATCH, c.Match("f", "other")))).run_ids
    bench.do(c.Terminate(first))
    bench.clock.tick(31 * DAY)
    bench.do(c.Terminate(second))
    bench.do(c.Prune())
    assert events_left(bench) == ["e"], "a run of it is there"
    bench.clock.tick(31 * DAY)
    assert bench.do(c.Prune()).count == 2
    assert events_left(bench) == []


def test_of_many_events_none_is_left_behind(bench: Bench) -> None:
    for number in range(4):
        bench.do(c.AcceptEvent(c.NewEvent(f"alone{number}", "t", "2026", "h")))
        (run_id,) = bench.do(c.AcceptEvent(c.NewEvent(f"e{number}", "t", "2026", "h"), MATCH)).run_ids
        bench.do(c.Terminate(run_id))
    bench.do(c.ReplayEvent("alone0"))
    bench.clock.tick(31 * DAY)
    rounds = 0
    while (worked := bench.do(c.Prune(limit=2))).more:
        rounds += 1
        assert worked.count <= 6
        assert_lawful(bench.store)
    assert (events_left(bench), rounds) == ([], 2)


def test_an_event_whose_run_is_restarted_next_to_its_pruning_stays(bench: Bench) -> None:
    (run_id,) = bench.do(c.AcceptEvent(EVENT, MATCH)).run_ids
    bench.do(c.Terminate(run_id))
    bench.clock.tick(31 * DAY)
    bench.all(c.Restart(run_id), c.Prune())
    assert events_left(bench) == ["e"]
    (held,) = bench.claim()
    assert held.event is not None


def test_an_event_that_is_sent_again_next_to_its_pruning_does_not_stay_for_ever(bench: Bench) -> None:
    (run_id,) = bench.do(c.AcceptEvent(EVENT, MATCH)).run_ids
    bench.do(c.Terminate(run_id))
    bench.clock.tick(31 * DAY)
    bench.all(c.AcceptEvent(EVENT, MATCH), c.Prune())
    assert events_left(bench) == []


def test_one_commit_deletes_a_bounded_number_of_entries(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PRUNED_ROWS", 25)
    for number in range(6):
        bench.start(f"r{number}")
        for _ in range(8):
            bench.do(c.Signal(f"r{number}", "s"))
        bench.do(c.Terminate(f"r{number}"))
    bench.start("long")
    for _ in range(50):
        bench.do(c.Signal("long", "s"))
    bench.do(c.Terminate("long"))
    bench.clock.tick(31 * DAY)
    counts = []
    while (worked := bench.do(c.Prune())).more:
        counts.append(worked.count)
    assert counts == [2, 2, 2, 1], "the last is one run alone, however long"

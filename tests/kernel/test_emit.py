"""Events that a result sends: in the commit that ends the run, linked to it, at most so many in a chain."""

from itertools import count

import msgspec

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.rows import Event
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

MATCH = (c.Match("flow", "step", retry='{"max_attempts":2,"initial_ms":0}'),)


def sends(*ids: str, body: str = "h", at: int = 0, scope: str = "main") -> c.Emission:
    return c.Emission(tuple(c.Emitted(c.NewEvent(one, "t", "2026", body), MATCH) for one in ids), at, scope)


def step(bench: Bench, event_id: str = "first") -> c.Leased:
    """The leased run of a new event."""
    bench.do(c.AcceptEvent(c.NewEvent(event_id, "t", "2026", "h"), MATCH))
    return bench.claim()[0]


def event(bench: Bench, event_id: str) -> Event:
    with bench.reader() as reader:
        found = reader.event("main", event_id)
    assert found is not None, event_id
    return found


def is_there(bench: Bench, event_id: str) -> bool:
    with bench.reader() as reader:
        return reader.event("main", event_id) is not None


def test_they_come_with_their_runs_and_both_know_of_each_other(bench: Bench) -> None:
    held = step(bench)
    bench.do(c.Finish(held.lease, 1, c.Completed(), sends("a", "b")))
    (first, second) = (run for run in bench.claim())
    assert [first.event and first.event.id, second.event and second.event.id] == ["a", "b"]
    assert (event(bench, "a").cause, event(bench, "a").depth, first.run.depth) == (held.run.id, 1, 1)
    last = msgspec.json.decode(bench.journal(held.run.id)[-1].data)
    assert last["next"] == ["a", "b"]
    bench.do(c.Finish(first.lease, 1, c.Completed(), sends("c")))
    assert event(bench, "c").depth == 2


def test_a_repeat_sends_nothing_twice(bench: Bench) -> None:
    held = step(bench)
    command = c.Finish(held.lease, 1, c.Completed(), sends("a"))
    assert bench.do(command) == bench.do(command)
    assert len(bench.claim()) == 1


def test_an_event_that_is_there_stays_as_it_is(bench: Bench) -> None:
    one, two = step(bench, "one"), step(bench, "two")
    bench.do(c.Finish(one.lease, 1, c.Completed(), sends("a")))
    bench.do(c.Finish(two.lease, 1, c.Completed(), sends("a")))
    assert event(bench, "a").cause == one.run.id
    assert len(bench.claim()) == 1


def test_another_body_refuses_the_whole_write(bench: Bench) -> None:
    held = step(bench)
    bench.do(c.AcceptEvent(c.NewEvent("a", "t", "2026", "mine")))
    bench.refused(c.Finish(held.lease, 1, c.Completed(), sends("new", "a")), errors.Conflict)
    assert not is_there(bench, "new")
    assert bench.run(held.run.id).status == "running"


def test_a_match_that_is_out_of_date_is_made_again(bench: Bench) -> None:
    held = step(bench)
    revision = bench.do(c.SyncManifests((("flow", "1", "h", "{}"),))).revision
    bench.refused(c.Finish(held.lease, 1, c.Completed(), sends("a")), errors.Outdated)
    bench.do(c.Finish(held.lease, 1, c.Completed(), sends("a", at=revision)))
    assert is_there(bench, "a")


def test_no_event_goes_to_another_scope(bench: Bench) -> None:
    held = step(bench)
    bench.refused(c.Finish(held.lease, 1, c.Completed(), sends("a", scope="b")), errors.Invalid)


def test_a_failure_sends_only_when_it_is_the_end(bench: Bench) -> None:
    held = step(bench)
    bench.do(c.Fail(held.lease, 1, "{}", sends=sends("a")))
    assert not is_there(bench, "a")
    bench.settle()
    bench.do(c.Fail(bench.claim()[0].lease, 1, "{}", sends=sends("a")))
    assert event(bench, "a").cause == held.run.id
    assert msgspec.json.decode(bench.journal(held.run.id)[-1].data)["next"] == ["a"]


def test_a_chain_ends_at_its_bound() -> None:
    bench = Bench(MemoryStore(), settings=Settings(event_depth=3))
    held, names = step(bench), (f"n{number}" for number in count(1))
    for _ in range(3):
        bench.do(c.Finish(held.lease, 1, c.Completed(), sends(next(names))))
        (held,) = bench.claim()
    refusal = bench.refused(c.Finish(held.lease, 1, c.Completed(), sends(next(names))), errors.TooLarge)
    assert (refusal.fields["what"], refusal.fields["limit"]) == ("event_depth", 3)
    assert "STEPWELL_EVENT_DEPTH" in refusal.hint
    bench.do(c.Finish(held.lease, 1, c.Completed()))
    assert_lawful(bench.store, bench.settings)


def test_a_replay_stands_as_deep_as_its_event(bench: Bench) -> None:
    held = step(bench)
    bench.do(c.Finish(held.lease, 1, c.Completed(), sends("a")))
    replayed = bench.do(c.ReplayEvent("a", MATCH))
    assert bench.run(replayed.run_ids[0]).depth == 1

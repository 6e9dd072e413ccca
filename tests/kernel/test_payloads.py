"""Payloads: one JSON value and nothing else, since an entry holds it as it stands; measured in bytes."""

from collections.abc import Callable

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted, StepFailed, StepRetried, raw
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

BAD = ("{oops", '1,"pool":"evil"', '1}, "x": {"a":1', "1 2", "NaN", "-Infinity", "", " ", "01", "[1,]", "'a'", '"\x01"')
Make = Callable[[c.Lease, str], c.Command]


def event(bad: str, **fields: str) -> c.NewEvent:
    return c.NewEvent("e", "t", "2026", "h", **{"payload": bad, **fields})


def write(*entries: c.Draft) -> Callable[[c.Lease], c.Command]:
    return lambda lease: c.Record(lease, 1, 9, entries)


MAKES: dict[str, Make] = {
    "StartRun.input": lambda lease, bad: c.StartRun("x", "wf", bad),
    "StartRun.input of a replacement": lambda lease, bad: c.StartRun("r", "wf", bad, reuse="replace"),
    "StartRun.tags": lambda lease, bad: c.StartRun("x", "wf", tags=bad),
    "Signal.payload": lambda lease, bad: c.Signal("r", "s", bad),
    "NewEvent.payload": lambda lease, bad: c.AcceptEvent(event(bad)),
    "NewEvent.extra": lambda lease, bad: c.AcceptEvent(event("1", extra=bad)),
    "AcceptEvent.misses": lambda lease, bad: c.AcceptEvent(event("1"), misses=bad),
    "SyncManifests": lambda lease, bad: c.SyncManifests((("f", "1", "h", bad),)),
    "StepCompleted.result": lambda lease, bad: write(c.Draft(StepCompleted(raw(bad)), "k"))(lease),
    "StepFailed.error": lambda lease, bad: write(c.Draft(StepFailed(raw(bad)), "k"))(lease),
    "StepRetried.error": lambda lease, bad: write(c.Draft(StepRetried(1, 1, raw(bad)), "k"))(lease),
    "ActionScheduled.args": lambda lease, bad: write(c.Draft(ActionScheduled("f", raw(bad)), "k"))(lease),
    "ActionScheduled.retry": lambda lease, bad: write(c.Draft(ActionScheduled("f", retry=raw(bad)), "k"))(lease),
    "ChildStarted.input": lambda lease, bad: write(c.Draft(ChildStarted("kid", "w", input=raw(bad)), "k"))(lease),
    "Mutate.args": lambda lease, bad: c.Mutate(lease, 1, 9, "k", "m:f", bad),
    "Completed.result": lambda lease, bad: c.Finish(lease, 1, c.Completed(bad)),
    "Continued.input": lambda lease, bad: c.Finish(lease, 1, c.Continued("r2", bad, 99)),
    "CarriedSignal.payload": lambda lease, bad: c.Finish(
        lease, 1, c.Continued("r2", "1", 99, signals=(c.CarriedSignal("s", bad),))
    ),
    "Fail.error": lambda lease, bad: c.Fail(lease, 1, bad),
    "Fail.result": lambda lease, bad: c.Fail(lease, 1, "{}", retry=False, result=bad),
}


@pytest.mark.parametrize("what", MAKES)
def test_what_is_not_json_is_refused_wherever_a_payload_goes(bench: Bench, what: str) -> None:
    lease = bench.turn().lease
    for bad in BAD:
        refusal = bench.refused(MAKES[what](lease, bad), errors.Invalid)
        assert "JSON" in str(refusal) or "retry" in str(refusal), bad
    assert bench.kinds() == ["run.created", "attempt.started"]


@pytest.mark.parametrize("outcome", ["finish", "fail"])
def test_an_actions_result_is_json_too(bench: Bench, outcome: str) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"))
    (action,) = bench.claim()
    for bad in BAD:
        worse = c.Finish(action.lease, 1, c.Completed(bad)) if outcome == "finish" else c.Fail(action.lease, 1, bad)
        bench.refused(worse, errors.Invalid)
    bench.do(c.Finish(action.lease, 1, c.Completed("1")))


def test_details_that_are_not_json_are_dropped_and_the_lease_goes_on(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.Sync("w", (c.Beat(lease, details='{"at":1}'),)))
    bench.clock.tick(1_000)
    (beat,) = bench.do(c.Sync("w", (c.Beat(lease, details="{oops"),))).tasks
    assert (beat.error, beat.lease_until) == (None, bench.clock.now + 120_000)
    assert "JSON" in (beat.dropped or "")
    assert bench.task().details == '{"at":1}'


def test_json_that_is_nested_too_deeply_is_the_callers_fault(bench: Bench) -> None:
    bench.refused(c.StartRun("x", "wf", "[" * 100_000 + "]" * 100_000), errors.Invalid)


def test_a_payload_cannot_say_anything_about_its_run(bench: Bench) -> None:
    bench.start(input='{"parent_no":7,"pool":"evil"}')
    assert (bench.run().parent_no, bench.run().pool) == (None, "default")


def test_the_size_of_a_journal_is_in_bytes() -> None:
    bench = Bench(MemoryStore(), settings=Settings(journal_bytes=64 * 1_024))
    lease = bench.turn(input='"é"').lease
    assert bench.run().journal_bytes == sum(len(entry.data.encode()) for entry in bench.journal())
    wide = raw('"' + "🦀" * 10_000 + '"')  # 40,002 bytes
    bench.record(lease, 1, StepCompleted(wide))
    bench.refused(c.Record(lease, 2, 9, (c.Draft(StepCompleted(wide), "k2"),)), errors.TooLarge)
    many = (c.CarriedSignal("s", msgspec.json.encode("🦀" * 10_000).decode()),) * 2
    bench.refused(c.Finish(lease, 2, c.Continued("r2", "1", 99, signals=many)), errors.TooLarge)
    assert_lawful(bench.store, bench.settings)

"""A worker's writes: numbered, repeatable, fenced; nobody's signal refuses them, and only park insists on all seen."""

import pytest

from stepwell.kernel.calls import Call
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import (
    ActionScheduled,
    ChildStarted,
    PatchMarked,
    RunCompleted,
    StepCompleted,
    StepFailed,
    StepRetried,
    TimerFired,
    raw,
)
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench
from tests.support.mutations import Scripted

ONE = StepCompleted(raw("1"))


def test_writes_count_from_one_within_a_lease(bench: Bench) -> None:
    lease = bench.turn().lease
    assert bench.record(lease, 1, ONE).first == 3
    assert bench.record(lease, 2, ONE, ONE, key="b").head == 5
    for n in (0, 1, 4, 100):
        bench.refused(c.Record(lease, n, 9, (c.Draft(ONE, "z"),)), errors.OutOfStep)
    assert [entry.n for entry in bench.journal()] == [0, 0, 1, 2, 2]
    bench.do(c.Release(lease, 3))
    (again,) = bench.claim()
    assert bench.record(again.lease, 1, ONE, key="c").first == 8


def test_a_repeat_gets_the_first_answer_and_writes_nothing(bench: Bench) -> None:
    lease = bench.turn().lease
    first = bench.record(lease, 1, ONE, StepFailed(raw("2")))
    assert first.own == []
    bench.clock.tick(500)
    bench.do(c.Signal("r", "s"))
    again = bench.record(lease, 1, ONE, StepFailed(raw("2")))
    assert again.own == bench.journal()[2:4]
    assert (again.first, again.head, again.at, again.missed) == (first.first, first.head, first.at, [])
    assert again.at == bench.clock.now - 500
    assert bench.kinds().count("step.completed") == 1
    parked = c.Park(lease, 2, 10, ("signal:x",))
    assert bench.do(parked) == bench.do(parked) == c.Done("parked", "waiting")


@pytest.mark.parametrize(
    "ending",
    [
        c.Finish(c.Lease(0, 0, 0, ""), 1, c.Completed("7", "changed")),
        c.Finish(c.Lease(0, 0, 0, ""), 1, c.Canceled("asked")),
        c.Finish(c.Lease(0, 0, 0, ""), 1, c.Continued("next", "1", 10)),
        c.Fail(c.Lease(0, 0, 0, ""), 1, '{"type":"X"}'),
        c.Release(c.Lease(0, 0, 0, ""), 1, delay_ms=70),
        c.Park(c.Lease(0, 0, 0, ""), 1, 10, ("timer:t",), 1_800_000_000_000, "t"),
    ],
    ids=lambda ending: f"{type(ending).__name__} {getattr(ending, 'outcome', '')}"[:20],
)
def test_what_ends_a_lease_can_be_sent_twice(bench: Bench, ending: c.Finish) -> None:
    ending.lease = bench.turn().lease
    first = bench.do(ending)
    journal = bench.journal()
    assert bench.do(ending) == first
    assert bench.journal() == journal


def test_the_answer_brings_what_others_wrote_in_the_meantime(bench: Bench) -> None:
    task = bench.turn()
    bench.do(c.Signal("r", "a"))
    bench.do(c.Signal("r", "b", '"payload"'))
    answer = bench.record(task.lease, 1, ONE, seen=task.seen)
    assert [(entry.seq, entry.kind) for entry in answer.missed] == [(3, "signal.received"), (4, "signal.received")]
    assert '"payload"' in answer.missed[1].data
    assert (answer.first, answer.head) == (5, 5)
    assert bench.record(task.lease, 1, ONE, seen=task.seen).missed == answer.missed
    bench.do(c.Signal("r", "c"))
    assert [entry.seq for entry in bench.record(task.lease, 2, ONE, key="l", seen=5).missed] == [6]


def test_park_is_refused_while_something_is_unseen_and_brings_it(bench: Bench) -> None:
    task = bench.turn()
    bench.do(c.Signal("r", "a"))
    refusal = bench.refused(c.Park(task.lease, 1, task.seen, ("signal:a",)), errors.Unseen)
    assert [entry.kind for entry in refusal.entries] == ["signal.received"]
    assert set(refusal.fields) == {"run_id"}
    assert bench.do(c.Park(task.lease, 1, 3, ("signal:a",))).state == "parked"


def test_own_results_are_seen_by_their_writer_but_not_by_an_old_park(bench: Bench) -> None:
    lease = bench.turn().lease
    head = bench.record(lease, 1, ONE).head
    bench.refused(c.Park(lease, 2, head - 1, ("signal:a",)), errors.Unseen)
    assert bench.do(c.Park(lease, 2, head, ("signal:a",))).status == "waiting"


@pytest.mark.parametrize(
    "waits", [(), ("timer:t",), ("action:gone",), ("child:gone",), ("action:gone", "timer:t")], ids=str
)
def test_a_park_that_waits_for_nothing_that_can_happen_is_held_stalled(bench: Bench, waits: tuple[str, ...]) -> None:
    lease = bench.turn().lease
    assert bench.do(c.Park(lease, 1, 10, waits)).state == "held"
    run = bench.run()
    assert (run.status, run.hold, run.needs_attention) == ("waiting", "stalled", True)


def test_a_wait_for_an_open_action_or_child_is_no_stall(bench: Bench) -> None:
    lease = bench.turn().lease
    head = bench.record(lease, 1, ActionScheduled("m:f"), ChildStarted("kid", "w")).head
    assert bench.do(c.Park(lease, 2, head, ("action:k0",))).state == "parked"
    bench.do(c.Signal("r", "wake"))
    again = next(one for one in bench.claim() if one.run.id == "r" and one.kind == "turn")
    assert bench.do(c.Park(again.lease, 1, again.seen, ("child:k1",))).state == "parked"


def test_every_recordable_kind_is_recorded_and_no_other(bench: Bench) -> None:
    lease = bench.turn().lease
    bodies = [ONE, StepFailed(), StepRetried(1, 5), ActionScheduled("m:f"), ChildStarted("kid", "w"), TimerFired(5)]
    bench.record(lease, 1, *bodies, PatchMarked("p"))
    assert bench.kinds()[2:] == [body.kind for body in [*bodies, PatchMarked("p")]]
    refusal = bench.refused(c.Record(lease, 2, 9, (c.Draft(RunCompleted()),)), errors.Invalid)
    assert refusal.fields["kind"] == "run.completed"
    bench.refused(c.Record(lease, 2, 9, ()), errors.Invalid)


def test_actions_and_steps_do_not_write_like_turns(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"))
    (action,) = bench.claim()
    assert (action.kind, action.name, action.args, action.key) == ("action", "m:f", "null", "k")
    bench.refused(c.Record(action.lease, 1, 9, (c.Draft(ONE, "a"),)), errors.Invalid)
    bench.refused(c.Park(action.lease, 1, 9, ("signal:x",)), errors.Invalid)
    bench.refused(c.Mutate(action.lease, 1, 9, "a", "m:f"), errors.Invalid)
    bench.refused(c.Finish(action.lease, 1, c.Continued("r2", "1", 100)), errors.Invalid)


def test_an_action_ends_in_the_journal_of_the_run_that_scheduled_it(bench: Bench) -> None:
    turn = bench.turn()
    head = bench.record(turn.lease, 1, ActionScheduled("m:f"), ActionScheduled("m:g"), ActionScheduled("m:h")).head
    bench.do(c.Park(turn.lease, 2, head, ("action:k0",)))
    one, two, three = sorted(bench.claim(), key=lambda held: held.lease.k)
    assert bench.do(c.Finish(one.lease, 1, c.Completed('"done"'))).state == "done"
    assert bench.do(c.Finish(one.lease, 1, c.Completed('"done"'))).state == "done"
    assert bench.task().state == "ready"
    assert bench.do(c.Fail(two.lease, 1, '{"type":"E"}')).state == "done"
    assert bench.do(c.Finish(three.lease, 1, c.Canceled())).state == "done"
    ends = [(entry.kind, entry.key) for entry in bench.journal()[-3:]]
    assert ends == [("action.completed", "k0"), ("action.failed", "k1"), ("action.failed", "k2")]
    assert bench.run().open_actions == 0
    bench.refused(c.Finish(one.lease, 2, c.Completed()), errors.Stale)


def test_the_result_of_an_action_whose_run_has_ended_is_stored_nowhere(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"))
    (action,) = bench.claim()
    bench.do(c.Terminate("r"))
    journal = bench.journal()
    bench.refused(c.Finish(action.lease, 1, c.Completed()), errors.Ended)
    assert bench.journal() == journal


def test_an_action_is_tried_again_with_back_off_and_then_given_up(bench: Bench) -> None:
    retry = raw('{"max_attempts":3,"initial_ms":1000,"factor":2}')
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f", retry=retry))
    for low, high in ((500, 1_500), (1_000, 3_000)):
        (action,) = bench.claim()
        failed = c.Fail(action.lease, 1, '{"type":"E"}')
        done = bench.do(failed)
        assert bench.do(failed) == done
        assert done.state == "due"
        assert low <= done.next_at - bench.clock.now < high
        bench.clock.now = done.next_at - 1
        bench.do(c.Fire())
        assert bench.claim() == []
        bench.clock.tick(1)
        bench.do(c.Fire())
    (last,) = bench.claim()
    assert (last.attempt, last.failures) == (3, 2)
    assert bench.do(c.Fail(last.lease, 1, "{}")).state == "done"
    assert [kind for kind in bench.kinds() if kind in ("attempt.ended", "action.failed")] == [
        "attempt.ended",
        "attempt.ended",
        "action.failed",
    ]


def test_fail_without_retry_or_after_a_cancel_is_final(bench: Bench) -> None:
    retry = raw('{"max_attempts":9}')
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f", retry=retry), ActionScheduled("m:g", retry=retry))
    one, two = bench.claim()
    assert bench.do(c.Fail(one.lease, 1, "{}", retry=False)).state == "done"
    bench.do(c.Cancel("r"))
    assert bench.do(c.Fail(two.lease, 1, "{}")).state == "done"


def mutation(call: Call) -> tuple[bool, str]:
    return (True, call.args) if call.function == "m:good" else (False, '{"type":"Bad"}')


def test_a_mutation_is_recorded_with_its_result_or_error() -> None:
    bench = Bench(MemoryStore(), mutations=Scripted(mutation))
    lease = bench.turn().lease
    good = c.Mutate(lease, 1, 2, "good", "m:good", '{"a":1}')
    assert bench.do(good) == bench.do(good)
    bench.do(c.Mutate(lease, 2, 3, "bad", "m:bad"))
    assert bench.kinds()[2:] == ["step.completed", "step.failed"]
    assert '{"a":1}' in bench.journal()[2].data
    bench.refused(c.Mutate(lease, 5, 3, "late", "m:good"), errors.OutOfStep)


def test_a_mutation_nobody_knows_is_refused(bench: Bench) -> None:
    lease = bench.turn().lease
    refusal = bench.refused(c.Mutate(lease, 1, 2, "k", "m:gone"), errors.UnknownFunction)
    assert refusal.fields["function"] == "m:gone"
    assert bench.run().head_seq == 2


def test_a_mutation_that_cannot_be_recorded_is_not_run() -> None:
    calls: list[str] = []

    def mutations(call: Call) -> tuple[bool, str]:
        calls.append(call.function)
        return True, "1"

    small = Settings(payload_bytes=1_024, journal_entries=100)
    bench = Bench(MemoryStore(), mutations=Scripted(mutations), settings=small)
    lease = bench.turn().lease
    bench.refused(c.Mutate(lease, 1, 9, "k" * 1_025, "m:f"), errors.TooLarge)
    bench.refused(c.Mutate(lease, 1, 9, "", "m:f"), errors.Invalid)
    bench.refused(c.Mutate(lease, 1, 9, "k", "m:f", "{oops"), errors.Invalid)
    bench.refused(c.Mutate(lease, 2, 9, "k", "m:f"), errors.OutOfStep)
    bench.record(lease, 1, *[PatchMarked("p")] * 98)
    bench.refused(c.Mutate(lease, 2, 999, "k", "m:f"), errors.TooLarge)
    assert calls == []

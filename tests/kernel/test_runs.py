"""Runs: start, reuse, children, ends, restart, continue-as-new."""

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted, raw
from tests.support import Bench

CHILD = ChildStarted("kid", "wf2", input=raw("5"))


def test_a_start_with_an_id_that_is_there_answers_with_its_run(bench: Bench) -> None:
    first = bench.start(input='{"a":1}', tags='{"t":"x"}', version="v1", by="me", deadline=9_000_000_000_000)
    again = bench.start(input='{"a":1}')
    assert (first.created, again.created, again.run_no) == (True, False, first.run_no)
    run = bench.run()
    assert (run.input, run.tags, run.version, run.status, run.turn) == ('{"a":1}', '{"t":"x"}', "v1", "queued", 1)
    bench.refused(c.StartRun("r", "wf", '{"a":2}'), errors.Conflict)
    bench.refused(c.StartRun("r", "another", '{"a":1}'), errors.Conflict)
    bench.refused(c.StartRun("r", "wf", '{"a":1}', reuse="raise"), errors.Exists)


def test_the_same_start_after_its_end_is_no_second_run(bench: Bench) -> None:
    bench.do(c.Finish(bench.turn().lease, 1, c.Completed()))
    assert not bench.start().created
    assert bench.run().status == "completed"


@pytest.mark.parametrize("ended", [False, True])
def test_replace_begins_again_with_the_new_input(bench: Bench, ended: bool) -> None:
    lease = bench.turn(input="1").lease
    if ended:
        bench.do(c.Finish(lease, 1, c.Completed()))
    assert bench.start(input="2", reuse="replace").created
    run = bench.run()
    assert (run.generation, run.input, run.status, run.cancel_at) == (2, "2", "queued", None)
    bench.refused(c.Finish(lease, 2, c.Completed()), errors.Stale)
    (claimed,) = bench.claim()
    assert (claimed.input, [entry.kind for entry in claimed.journal]) == ("2", ["run.restarted", "attempt.started"])


def test_a_start_may_be_fused_with_its_first_lease(bench: Bench) -> None:
    task = bench.turn()
    assert (task.attempt, task.lease.epoch, task.journal, task.input) == (1, 1, [], "null")
    assert bench.run().status == "running"
    bench.record(task.lease, 1, StepCompleted())


def test_a_delayed_start_waits_for_its_time(bench: Bench) -> None:
    bench.start(due_at=bench.clock.now + 1_000)
    assert bench.claim() == []
    assert bench.task().state == "due"
    bench.clock.tick(1_000)
    bench.do(c.Fire())
    assert [one.run.id for one in bench.claim()] == ["r"]
    bench.start("past", due_at=bench.clock.now)
    assert bench.task("past").state == "ready"


def test_a_child_tells_its_end_once_and_only_to_the_generation_that_started_it(bench: Bench) -> None:
    turn = bench.turn()
    head = bench.record(turn.lease, 1, CHILD).head
    bench.do(c.Park(turn.lease, 2, head, ("child:k",)))
    (kid,) = bench.claim()
    assert (kid.run.id, kid.input, kid.run.parent_key, kid.run.root_no) == ("kid", "5", "k", bench.run().no)
    bench.do(c.Finish(kid.lease, 1, c.Completed('"out"')))
    assert bench.kinds()[-1] == "run.parked"
    assert bench.do(c.Deliver()).count == 1
    assert bench.do(c.Deliver()).count == 0
    assert msgspec.json.decode(bench.journal()[-1].data) == {"child": "kid", "status": "completed", "result": "out"}
    assert (bench.journal()[-1].key, bench.task().state, bench.run().open_children) == ("k", "ready", 0)


def test_the_end_of_a_child_is_nothing_to_a_restarted_parent(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, CHILD)
    (kid,) = bench.claim()
    bench.do(c.Finish(kid.lease, 1, c.Completed()))
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r"))
    journal = bench.journal()
    assert bench.do(c.Deliver()).count == 1
    assert bench.journal() == journal


@pytest.mark.parametrize(
    ("ending", "status"),
    [("fail", "failed"), ("terminate", "canceled")],
)
def test_a_parent_hears_of_every_kind_of_end(bench: Bench, ending: str, status: str) -> None:
    bench.record(bench.turn().lease, 1, CHILD)
    (kid,) = bench.claim()
    bench.do(c.Fail(kid.lease, 1, '{"type":"E"}') if ending == "fail" else c.Terminate("kid"))
    bench.do(c.Deliver())
    told = msgspec.json.decode(bench.journal()[-1].data)
    assert told["status"] == status
    assert told.get("error") == ({"type": "E"} if ending == "fail" else None)


def test_the_end_of_a_parent_cancels_attached_children_only(bench: Bench) -> None:
    lease = bench.turn().lease
    free = ChildStarted("free", "wf2", attached=False)
    bench.record(lease, 1, CHILD, free, ChildStarted("over", "wf2"))
    bench.do(c.Terminate("over"))
    bench.do(c.Finish(lease, 2, c.Completed()))
    bench.settle()
    assert [bench.run(name).status for name in ("kid", "free", "over")] == ["canceled", "queued", "canceled"]
    assert bench.run("free").parent_no is None


def test_a_child_whose_id_is_taken_fails_and_the_other_entries_stand(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.start("kid")
    drafts = (c.Draft(StepCompleted(), "a"), c.Draft(CHILD, "b"), c.Draft(StepCompleted(), "c"))
    recorded = bench.do(c.Record(lease, 1, 2, drafts))
    assert [entry.kind for entry in recorded.own] == ["step.completed", "step.failed", "step.completed"]
    assert (recorded.own[1].key, '"type":"Exists"' in recorded.own[1].data) == ("b", True)
    assert bench.run().open_children == 0


def test_a_child_that_begins_again_has_told_its_end_already(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, CHILD)
    for _ in range(2):
        bench.do(c.Terminate("kid"))
        bench.do(c.Deliver())
        bench.do(c.Restart("kid"))
    assert bench.kinds().count("child.ended") == 1
    assert bench.run().open_children == 0
    assert bench.do(c.Finish(lease, 2, c.Continued("r2", "1", 10))).status == "completed"


def test_restart_begins_a_generation_and_keeps_what_it_is_told_to(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, StepCompleted(raw("1")), StepCompleted(raw("2")), ActionScheduled("m:f"))
    bench.refused(c.Restart("r", 3), errors.Open)
    bench.do(c.Fail(lease, 2, '{"type":"E"}', result="1", result_status="blocked"))
    for keep in (-1, 7):
        bench.refused(c.Restart("r", keep), errors.Invalid)
    assert bench.do(c.Restart("r", 3, by="me")) == c.RunState("r", "queued", 2, None)
    run = bench.run()
    assert (run.error, run.result, run.result_status, run.ended_at, run.open_actions) == (None, None, None, None, 0)
    assert [task.state for task in bench.tasks()] == ["done", "done", "ready"]
    (claimed,) = bench.claim()
    assert [entry.seq for entry in claimed.journal] == [1, 2, 3, 7, 8]
    bench.record(claimed.lease, 1, StepCompleted(raw("9")), StepCompleted(raw("8")))
    bench.do(c.Finish(claimed.lease, 2, c.Completed()))
    bench.do(c.Restart("r", 9))
    (third,) = bench.claim()
    assert ([entry.seq for entry in third.journal], third.run.generation) == ([1, 2, 3, 7, 8, 9, 12, 13], 3)
    assert [entry.generation for entry in third.journal] == [1, 1, 1, 2, 2, 2, 3, 3]


def test_a_write_of_an_earlier_generation_is_stale(bench: Bench) -> None:
    old = bench.turn().lease
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r"))
    (new,) = bench.claim()
    assert new.lease.epoch > old.epoch
    journal = bench.journal()
    for command in (c.Record(old, 1, 9, (c.Draft(StepCompleted(), "s"),)), c.Finish(old, 1, c.Completed())):
        bench.refused(command, errors.Stale)
    assert bench.journal() == journal


def test_continue_as_new_hands_on_unread_signals_in_one_commit(bench: Bench) -> None:
    task = bench.turn(tags='{"t":1}', pool="p", pool_key="k", priority=7)
    commits = len(bench.commits)
    signals = (c.CarriedSignal("a", "1", "d"), c.CarriedSignal("b", "2"))
    bench.do(c.Finish(task.lease, 1, c.Continued("r2", '{"n":2}', 2, version="v2", signals=signals)))
    assert len(bench.commits) == commits + 1
    old, new = bench.run(), bench.run("r2")
    assert (old.status, old.next_no, new.root_no) == ("completed", new.no, old.no)
    assert (new.name, new.version, new.input, new.tags) == ("wf", "v2", '{"n":2}', '{"t":1}')
    assert (new.pool, new.pool_key, new.priority) == ("p", "k", 7)
    assert bench.kinds("r2") == ["run.created", "signal.received", "signal.received"]
    assert bench.do(c.Signal("r", "late")) == c.Signaled(0, moved_to="r2")
    (claimed,) = bench.claim()
    assert [entry.kind for entry in claimed.journal].count("signal.received") == 2


def test_continue_as_new_misses_no_signal(bench: Bench) -> None:
    task = bench.turn()
    bench.do(c.Signal("r", "s"))
    onward = c.Finish(task.lease, 1, c.Continued("r2", "1", task.seen))
    assert [entry.kind for entry in bench.refused(onward, errors.Unseen).entries] == ["signal.received"]
    bench.start("taken")
    bench.refused(c.Finish(task.lease, 1, c.Continued("taken", "1", 3)), errors.Exists)
    bench.record(task.lease, 1, ActionScheduled("m:f"), seen=3)
    bench.refused(c.Finish(task.lease, 2, c.Continued("r2", "1", 9)), errors.Open)
    assert bench.run().status == "running"


def test_a_continued_child_still_belongs_to_its_parent(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, CHILD)
    (kid,) = bench.claim()
    bench.do(c.Finish(kid.lease, 1, c.Continued("kid2", "1", 10)))
    assert bench.do(c.Deliver()).count == 0
    (kid2,) = bench.claim()
    bench.do(c.Finish(kid2.lease, 1, c.Completed('"end"')))
    bench.do(c.Deliver())
    ended = bench.journal()[-1]
    assert (ended.kind, ended.key) == ("child.ended", "k")
    assert '"end"' in ended.data

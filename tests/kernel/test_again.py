"""A new generation goes on with what the kept part of its journal had under way."""

import pytest

from stepwell.kernel.again import under_way
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionCanceled, ActionScheduled, ChildStarted, raw
from stepwell.model.rows import Entry
from tests.support import Bench

LARGE = '"' + "x" * 70_000 + '"'


def test_a_kept_action_without_a_result_is_done_again(bench: Bench) -> None:
    lease = bench.turn().lease
    head = bench.record(lease, 1, ActionScheduled("m:f", raw('"a"'), retry=raw('{"max_attempts":2}'))).head
    (old,) = bench.claim()
    bench.do(c.Finish(old.lease, 1, c.Completed("7")))
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", head))
    assert bench.run().open_actions == 1
    action, turn = sorted(bench.claim(), key=lambda one: one.kind)
    assert (action.lease.k, action.args, action.attempt) == (old.lease.k, '"a"', 2)
    bench.refused(c.Finish(old.lease, 1, c.Completed("7")), errors.Stale)
    bench.do(c.Finish(action.lease, 1, c.Completed("8")))
    assert [entry.kind for entry in turn.journal] == ["run.created", "attempt.started", "action.scheduled",
        "run.restarted", "attempt.started", "attempt.started"][: len(turn.journal)]  # fmt: skip
    assert bench.run().open_actions == 0


@pytest.mark.parametrize("later", [True, False])
def test_a_kept_action_that_was_not_due_yet_keeps_its_time(bench: Bench, later: bool) -> None:
    due_at = bench.clock.now + 5_000
    head = bench.record(bench.turn().lease, 1, ActionScheduled("m:f", due_at=due_at)).head
    bench.do(c.Terminate("r"))
    bench.clock.tick(1_000 if later else 9_000)
    bench.do(c.Restart("r", head))
    task = next(task for task in bench.tasks() if task.kind == "action")
    assert (task.state, task.due_at) == (("due", due_at) if later else ("ready", None))


def test_a_kept_result_or_cancel_closes_its_action(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f"), ActionScheduled("m:g"))
    action = next(task for task in bench.claim() if task.name == "m:f")
    bench.do(c.Finish(action.lease, 1, c.Completed()))
    head = bench.record(lease, 2, ActionCanceled(), key="k1").head
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", head))
    assert (bench.run().open_actions, [task.kind for task in bench.claim()]) == (0, ["turn"])


def test_a_kept_child_tells_how_it_ended_since(bench: Bench) -> None:
    head = bench.record(bench.turn().lease, 1, ChildStarted("kid", "w"), ChildStarted("kid2", "w")).head
    done, failed = bench.claim()
    bench.do(c.Finish(done.lease, 1, c.Completed(LARGE)))
    bench.do(c.Fail(failed.lease, 1, '{"type":"X"}'))
    bench.settle()
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", head))
    ends = [entry for entry in bench.journal() if entry.kind == "child.ended"][-2:]
    assert [(end.key, end.generation) for end in ends] == [("k0", 2), ("k1", 2)]
    assert LARGE in ends[0].data
    assert '"error":{"type":"X"}' in ends[1].data
    assert bench.run().open_children == 0


def test_a_kept_child_that_is_open_counts_as_canceled(bench: Bench) -> None:
    head = bench.record(bench.turn().lease, 1, ChildStarted("kid", "w"), ChildStarted("free", "w", attached=False)).head
    bench.do(c.Terminate("r"))
    bench.do(c.Restart("r", head))
    bench.settle()
    (end,) = [entry for entry in bench.journal() if entry.kind == "child.ended"]
    assert (end.key, '"status":"canceled"' in end.data) == ("k0", True)
    assert [bench.run(one).status for one in ("kid", "free")] == ["canceled", "queued"]


def test_a_restart_in_the_batch_of_the_end_sees_what_that_batch_wrote(bench: Bench) -> None:
    lease = bench.turn().lease
    draft = c.Draft(ActionScheduled("m:f", raw(LARGE)), "a")
    replies = bench.all(c.Record(lease, 1, 9, (draft,)), c.Terminate("r"), c.Restart("r", 3))
    assert replies[2].status == "queued"
    assert bench.run().open_actions == 1
    assert next(task for task in bench.claim() if task.kind == "action").args == LARGE


def test_what_an_earlier_restart_dropped_stays_dropped() -> None:
    def entry(seq: int, kind: str, key: str | None = None, data: str = "{}") -> Entry:
        return Entry(1, seq, kind, key, 0, 1, 0, data)

    entries = [
        entry(1, "action.scheduled", "a", '{"function":"m:f"}'),
        entry(2, "action.scheduled", "b", '{"function":"m:f"}'),
        entry(3, "action.completed", "a", '{"task":1}'),
        entry(4, "run.restarted", None, '{"generation":2,"keep_seq":1}'),
    ]
    assert [one.seq for one in under_way(entries[:3], 3)] == [2]
    assert [one.seq for one in under_way(entries[:3], 1)] == [1]
    assert [one.seq for one in under_way(entries, 3)] == [1]

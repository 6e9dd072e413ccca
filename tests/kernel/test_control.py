"""From outside: signals, cancels, holds; and timers, which beat whatever comes at a later time."""

from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted, raw
from tests.support import Bench

HOUR = 3_600_000


def test_a_signal_is_an_entry_the_moment_it_is_accepted(bench: Bench) -> None:
    bench.start()
    assert bench.do(c.Signal("r", "early", '{"a":1}', by="me")).seq == 2
    (task,) = bench.claim()
    assert [entry.kind for entry in task.journal] == ["run.created", "signal.received", "attempt.started"]
    bench.refused(c.Signal("nobody", "s"), errors.Unknown)
    bench.do(c.Finish(task.lease, 1, c.Completed()))
    assert bench.refused(c.Signal("r", "late"), errors.Ended).fields["status"] == "completed"


def test_a_signal_with_a_dedup_key_counts_once(bench: Bench) -> None:
    bench.start()
    first = bench.do(c.Signal("r", "s", "1", dedup="d"))
    assert bench.do(c.Signal("r", "s", "1", dedup="d")) == first
    bench.refused(c.Signal("r", "s", "2", dedup="d"), errors.Conflict)
    bench.refused(c.Signal("r", "t", "1", dedup="d"), errors.Conflict)
    assert bench.do(c.Signal("r", "s", "1", dedup="e")).seq == first.seq + 1
    bench.start("other")
    assert bench.do(c.Signal("other", "s", "2", dedup="d")).seq == 2
    both = bench.all(c.Signal("r", "s", "1", dedup="f"), c.Signal("r", "s", "1", dedup="f"))
    assert both[0] == both[1]
    assert bench.kinds().count("signal.received") == 3


def test_signals_keep_their_order(bench: Bench) -> None:
    bench.start()
    bench.all(*(c.Signal("r", "s", str(i)) for i in range(5)))
    assert [f'"payload":{i}' in entry.data for i, entry in enumerate(bench.journal()[1:])] == [True] * 5


def asleep(bench: Bench, hours: int) -> None:
    lease = bench.turn().lease
    bench.do(c.Park(lease, 1, 10, ("timer:t", "signal:go"), bench.clock.now + hours * HOUR, "t"))


def test_a_timer_of_hour_48_beats_a_signal_of_hour_50_whoever_was_down(bench: Bench) -> None:
    asleep(bench, 48)
    bench.clock.tick(50 * HOUR)
    bench.do(c.Signal("r", "go"))
    assert bench.kinds()[-2:] == ["timer.fired", "signal.received"]
    assert bench.journal()[-2].key == "t"
    bench.do(c.Fire())
    assert bench.kinds().count("timer.fired") == 1


@pytest.mark.parametrize("late", [0, 1, HOUR])
def test_a_timer_fires_at_its_time_and_not_before(bench: Bench, late: int) -> None:
    asleep(bench, 1)
    assert (bench.run().status, bench.task().state) == ("waiting", "due")
    bench.clock.tick(HOUR - 1)
    bench.do(c.Fire())
    assert bench.task().state == "due"
    bench.clock.tick(1 + late)
    bench.do(c.Fire())
    fired = bench.journal()[-1]
    assert (fired.kind, fired.key, bench.task().state, bench.run().status) == ("timer.fired", "t", "ready", "queued")


def test_a_signal_before_the_timer_wakes_and_the_timer_is_the_workers_again(bench: Bench) -> None:
    asleep(bench, 48)
    bench.do(c.Signal("r", "go"))
    bench.clock.tick(50 * HOUR)
    bench.do(c.Fire())
    assert "timer.fired" not in bench.kinds()
    assert bench.task().due_at is None


def test_a_park_whose_time_has_come_fires_at_once(bench: Bench) -> None:
    lease = bench.turn().lease
    park = c.Park(lease, 1, 10, ("timer:t",), bench.clock.now, "t")
    assert bench.do(park).state == "ready"
    assert bench.kinds()[-2:] == ["run.parked", "timer.fired"]
    assert bench.do(park).state == "ready"
    assert bench.kinds().count("timer.fired") == 1


def test_time_never_goes_back(bench: Bench) -> None:
    bench.start()
    bench.clock.tick(-60_000)
    bench.do(c.Signal("r", "s"))
    fresh = Bench(bench.store, clock=bench.clock)
    fresh.do(c.Signal("r", "s"))
    times = [entry.at for entry in bench.journal()]
    assert times == sorted(times)
    assert times[0] == times[-1]


def test_cancel_asks_once_and_the_worker_hears_of_it(bench: Bench) -> None:
    task = bench.turn()
    state = bench.do(c.Cancel("r", by="me", reason="why"))
    assert bench.do(c.Cancel("r")) == state == c.RunState("r", "running", 1, None)
    assert bench.kinds().count("cancel.requested") == 1
    beat = bench.do(c.Sync("w", (c.Beat(task.lease, task.seen),))).tasks[0]
    assert (beat.cancel, [entry.kind for entry in beat.missed]) == (True, ["cancel.requested"])
    bench.do(c.Finish(task.lease, 1, c.Canceled("stopped")))
    assert bench.run().status == "canceled"
    bench.refused(c.Cancel("r"), errors.Ended)


def test_cancel_ends_at_once_what_nobody_has_to_be_told_of(bench: Bench) -> None:
    bench.start()
    assert bench.do(c.Cancel("r")).status == "canceled"
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s"),)))
    (step,) = bench.claim()
    bench.do(c.Release(step.lease, 1))
    assert bench.do(c.Cancel(step.run.id)).status == "canceled"
    bench.turn("stuck")
    bench.do(c.HoldRun("stuck", "mismatch"))
    assert bench.do(c.Cancel("stuck")).status == "canceled"


def test_a_leased_step_is_asked_first(bench: Bench) -> None:
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s"),)))
    (step,) = bench.claim()
    assert bench.do(c.Cancel(step.run.id)).status == "running"


def test_a_cancel_past_its_grace_is_terminated_and_its_grace_counts_leased_time(bench: Bench) -> None:
    bench.turn()
    bench.do(c.Cancel("r"))
    grace = bench.settings.cancel_grace_ms
    bench.clock.tick(grace - 1)
    bench.do(c.Sweep())
    assert bench.run().status == "running"
    bench.clock.tick(1)
    bench.do(c.Sweep())
    assert bench.run().status == "canceled"
    lease = bench.turn("s").lease
    bench.do(c.Release(lease, 1))
    bench.do(c.Cancel("s"))
    bench.clock.tick(10 * grace)
    bench.do(c.Sweep())
    assert bench.run("s").status == "queued"
    bench.claim()
    bench.clock.tick(grace)
    bench.do(c.Sweep())
    assert bench.run("s").status == "canceled"


@pytest.mark.parametrize("due", [{}, {"due_at": 10**15, "due_key": "t#1"}])
def test_a_body_that_rests_after_its_cancel_has_no_more_than_the_grace(bench: Bench, due: dict[str, Any]) -> None:
    lease = bench.turn().lease
    bench.do(c.Cancel("r"))
    bench.do(c.Park(lease, 1, 100, ("signal:never",), **due))
    grace = bench.settings.cancel_grace_ms
    bench.clock.tick(grace - 1)
    bench.do(c.Sweep())
    assert bench.run().status in ("waiting", "sleeping")
    bench.clock.tick(1)
    bench.do(c.Sweep())
    assert bench.run().status == "canceled"


def test_a_deadline_ends_a_run_wherever_it_is(bench: Bench) -> None:
    soon = bench.clock.now + 500
    bench.start("ready", deadline=soon)
    lease = bench.turn("leased", deadline=soon).lease if bench.claim() else None
    bench.start("later", deadline=soon + 1)
    bench.clock.tick(500)
    bench.do(c.Sweep())
    assert [bench.run(name).status for name in ("ready", "leased", "later")] == ["failed", "failed", "queued"]
    assert '"Timeout"' in (bench.run("ready").error or "")
    assert lease is not None
    bench.refused(c.Finish(lease, 1, c.Completed()), errors.Ended)


def test_hold_stops_all_tasks_and_release_takes_them_back(bench: Bench) -> None:
    lease = bench.turn().lease
    due = ActionScheduled("m:g", due_at=bench.clock.now + HOUR)
    bench.record(lease, 1, ActionScheduled("m:f"), due, ChildStarted("kid", "w"))
    assert bench.do(c.HoldRun("r", by="me")) == c.RunState("r", "waiting", 1, "paused")
    assert [task.state for task in bench.tasks()] == ["held"] * 3
    bench.refused(c.Finish(lease, 2, c.Completed()), errors.Stale)
    assert bench.do(c.HoldRun("r", "mismatch")).hold == "paused"
    bench.do(c.Signal("r", "s"))
    assert [one.run.id for one in bench.claim()] == ["kid"]
    assert bench.do(c.ReleaseRun("r")) == c.RunState("r", "queued", 1, None)
    assert [task.state for task in bench.tasks()] == ["ready", "ready", "due"]
    assert bench.tasks()[2].due_at == due.due_at
    assert [entry.kind for entry in bench.claim()[0].journal].count("signal.received") == 1


def test_a_held_run_takes_what_comes_and_shows_it_after(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"), ChildStarted("kid", "w"))
    action, kid = sorted(bench.claim(), key=lambda one: one.kind)
    bench.do(c.Finish(kid.lease, 1, c.Completed()))
    bench.do(c.HoldRun("r"))
    bench.refused(c.Finish(action.lease, 1, c.Completed()), errors.Stale)
    bench.do(c.Deliver())
    assert (bench.kinds()[-1], bench.run().status, bench.run().hold) == ("child.ended", "waiting", "paused")


def test_only_known_reasons_hold(bench: Bench) -> None:
    bench.start()
    bench.refused(c.HoldRun("r", "because"), errors.Invalid)
    assert bench.do(c.ReleaseRun("r")).status == "queued"
    assert bench.kinds() == ["run.created"]


def test_a_cancel_of_a_paused_run_lets_it_hear(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, StepCompleted())
    bench.do(c.HoldRun("r"))
    assert bench.do(c.Cancel("r")) == c.RunState("r", "queued", 1, None)
    assert "cancel.requested" in [entry.kind for entry in bench.claim()[0].journal]


def test_messages_are_delivered_first_in_first_out(bench: Bench) -> None:
    lease = bench.turn().lease
    kids = [ChildStarted(f"kid{i}", "w") for i in range(5)]
    bench.record(lease, 1, *kids)
    for task in reversed(bench.claim()):
        bench.do(c.Finish(task.lease, 1, c.Completed()))
    while bench.do(c.Deliver(limit=2)).more:
        pass
    ended = [entry.key for entry in bench.journal() if entry.kind == "child.ended"]
    assert ended == ["k4", "k3", "k2", "k1", "k0"]


@pytest.mark.parametrize(
    "command",
    [
        c.Signal("r", "s", scope="b"),
        c.Cancel("r", scope="b"),
        c.Terminate("r", scope="b"),
        c.HoldRun("r", scope="b"),
        c.ReleaseRun("r", scope="b"),
        c.Restart("r", scope="b"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_foreign_run_looks_like_no_run(bench: Bench, command: c.Command) -> None:
    bench.turn()
    foreign = bench.refused(command, errors.Unknown)
    bench.do(c.Terminate("r"))
    assert str(bench.refused(command, errors.Unknown)) == str(foreign)


def test_a_pause_keeps_the_time_of_a_delayed_start(bench: Bench) -> None:
    later = bench.clock.now + 86_400_000
    bench.start(due_at=later)
    bench.do(c.HoldRun("r"))
    bench.do(c.ReleaseRun("r"))
    assert (bench.task().state, bench.task().due_at, bench.claim()) == ("due", later, [])
    bench.do(c.HoldRun("r"))
    bench.clock.now = later
    bench.settle()
    assert bench.task().state == "held", "a pause is a pause"
    bench.do(c.ReleaseRun("r"))
    assert [one.run.id for one in bench.claim()] == ["r"]


def test_a_pause_keeps_the_back_off_of_an_action(bench: Bench) -> None:
    policy = raw('{"max_attempts":3,"initial_ms":60000}')
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f", retry=policy))
    (action,) = bench.claim()
    next_at = bench.do(c.Fail(action.lease, 1, "{}")).next_at
    assert next_at is not None
    bench.do(c.HoldRun("r"))
    bench.do(c.ReleaseRun("r"))
    task = next(task for task in bench.tasks() if task.kind == "action")
    assert (task.state, task.due_at) == ("due", next_at)

"""What the entries of a write bring about: messages, events, values, actions that are not wanted any more."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import (
    ActionCanceled,
    ActionScheduled,
    Body,
    CancelSent,
    ChildStarted,
    EventSent,
    SignalSent,
    StateSet,
    StepCompleted,
    raw,
)
from stepwell.model.rows import Entry
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

NEW = c.NewEvent("e", "t", "2026", "h")


def event(new: c.NewEvent = NEW, *matches: c.Match, at: int = 0) -> c.Draft:
    """A draft that sends one event."""
    return c.Draft(EventSent(new.id), "k", c.Emission((c.Emitted(new, matches),), at))


def signals(bench: Bench, run_id: str) -> list[Entry]:
    return [entry for entry in bench.journal(run_id) if entry.kind == "signal.received"]


# ── signals and cancels ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_signal_commits_with_its_entry_and_comes_with_the_name_of_its_sender(bench: Bench) -> None:
    bench.start("other", pool="elsewhere")
    recorded = bench.record(bench.turn().lease, 1, SignalSent("other", "go", raw('{"a":1}')))
    assert recorded.own == []
    with bench.reader() as reader:
        assert reader.messages_to([1, 2]) == {1}
    bench.settle()
    (got,) = signals(bench, "other")
    assert got.data == '{"name":"go","payload":{"a":1},"by":"r"}'


def test_a_signal_follows_a_run_that_went_on_as_another(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.Finish(bench.turn("old").lease, 1, c.Continued("new", "1", 9)))
    assert bench.record(lease, 1, SignalSent("old", "go")).own == []
    bench.settle()
    bench.settle()
    assert len(signals(bench, "new")) == 1


@pytest.mark.parametrize("body", [SignalSent("other", "go"), CancelSent("other")], ids=lambda body: body.kind)
@pytest.mark.parametrize("ended", [True, False])
def test_what_reaches_nobody_is_a_failed_step_and_refuses_nothing(bench: Bench, body: Body, ended: bool) -> None:
    if ended:
        bench.start("other", pool="elsewhere")
        bench.do(c.Terminate("other"))
    lease = bench.turn().lease
    drafts = (c.Draft(StepCompleted(), "a"), c.Draft(body, "b"), c.Draft(StepCompleted(), "c"))
    recorded = bench.do(c.Record(lease, 1, 9, drafts))
    assert [entry.kind for entry in recorded.own] == ["step.completed", "step.failed", "step.completed"]
    assert recorded.own == bench.journal()[2:]
    assert (recorded.own[1].key, recorded.own[1].n) == ("b", 1)
    assert f'"type":"{"Ended" if ended else "NotFound"}"' in recorded.own[1].data
    assert bench.do(c.Record(lease, 1, 9, drafts)) == recorded
    with bench.reader() as reader:
        assert reader.messages_to(range(9)) == set()


def test_a_signal_with_a_dedup_key_comes_once_whoever_sends_it(bench: Bench) -> None:
    bench.start("other", pool="elsewhere")
    lease = bench.turn().lease
    same = SignalSent("other", "go", raw("1"), dedup="d")
    bench.record(lease, 1, same, same)
    bench.settle()
    assert bench.record(lease, 2, same, key="l").own == []
    with bench.reader() as reader:
        assert reader.messages_to(range(9)) == set(), "what came before is not sent again"
    seq = signals(bench, "other")[0].seq
    assert bench.do(c.Signal("other", "go", "1", dedup="d")).seq == seq
    assert len(signals(bench, "other")) == 1
    failed = bench.record(lease, 3, SignalSent("other", "go", raw("2"), dedup="d"), key="m").own
    assert '"type":"Conflict"' in failed[0].data


def test_two_other_signals_with_one_dedup_key_in_one_commit_the_first_counts(bench: Bench) -> None:
    bench.start("other", pool="elsewhere")
    bodies = [SignalSent("other", "go", raw(text), dedup="d") for text in "12"]
    bench.record(bench.turn().lease, 1, *bodies)
    bench.settle()
    assert ['"payload":1' in entry.data for entry in signals(bench, "other")] == [True]
    assert bench.run("other").hold is None


def test_a_signal_for_which_there_is_no_room_holds_its_receiver_and_nobody_else() -> None:
    bench = Bench(MemoryStore(), settings=Settings(journal_entries=100))
    full = bench.turn("full").lease
    bench.record(full, 1, *[StepCompleted()] * 98)
    bench.start("other", pool="elsewhere")
    bench.record(bench.turn().lease, 1, SignalSent("full", "go"), SignalSent("other", "go"))
    bench.settle()
    assert (bench.run("full").hold, len(signals(bench, "other"))) == ("poison", 1)
    assert_lawful(bench.store, bench.settings)


def test_anybody_may_cancel_and_is_named(bench: Bench) -> None:
    other = bench.turn("other").lease
    bench.record(bench.turn().lease, 1, CancelSent("other", "enough"))
    bench.settle()
    (entry,) = [entry for entry in bench.journal("other") if entry.kind == "cancel.requested"]
    assert entry.data == '{"by":"r","reason":"enough"}'
    (beat,) = bench.do(c.Sync("w", (c.Beat(other),))).tasks
    assert beat.cancel


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_accepted_with_its_runs_in_the_commit_of_its_entry(bench: Bench) -> None:
    lease = bench.turn().lease
    draft = event(NEW, c.Match("f", "s"), c.Match("app", "wf", workflow="wf"))
    (entry,) = bench.do(c.Record(lease, 1, 9, (draft,))).own
    assert (entry.kind, '"duplicate"' in entry.data, entry.data.count("run_")) == ("event.sent", False, 2)
    with bench.reader() as reader:
        found = reader.event("main", "e")
    assert found is not None
    assert (found.cause, found.depth, found.matched) == ("r", 1, 2)
    again = bench.do(c.Record(lease, 2, 9, (event(),))).own[0]
    assert '"duplicate":true' in again.data
    assert again.data.count("run_") == 2


def test_outdated_matches_refuse_the_write_and_may_come_again_with_the_same_number(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.SyncManifests((("f", "1", "h", "{}"),)))
    drafts = (c.Draft(StepCompleted(), "a"), event())
    bench.refused(c.Record(lease, 1, 9, drafts), errors.Outdated)
    assert bench.run().head_seq == 2
    assert bench.do(c.Record(lease, 1, 9, (drafts[0], event(at=1)))).head == 4


def test_an_event_with_another_body_fails_its_step_and_leaves_nothing(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.AcceptEvent(NEW))
    other = c.NewEvent("e", "t", "2026", "other")
    own = bench.do(c.Record(lease, 1, 9, (event(other, c.Match("f", "s")),))).own
    assert [(entry.kind, '"type":"Conflict"' in entry.data) for entry in own] == [("step.failed", True)]
    with bench.reader() as reader:
        assert [run.id for run in reader.scan_runs()] == ["r"]


def test_an_event_whose_run_cannot_be_made_leaves_nothing(bench: Bench) -> None:
    own = bench.do(c.Record(bench.turn().lease, 1, 9, (event(NEW, c.Match("f", "s", pool="")),))).own
    assert [(entry.kind, '"type":"Invalid"' in entry.data) for entry in own] == [("step.failed", True)]
    with bench.reader() as reader:
        assert reader.event("main", "e") is None


def test_a_chain_of_events_is_bounded_through_workflows_and_their_children() -> None:
    bench = Bench(MemoryStore(), settings=Settings(event_depth=1))
    bench.do(c.AcceptEvent(NEW))
    lease = bench.turn().lease
    first = c.NewEvent("e1", "t", "2026", "h")
    bench.do(c.Record(lease, 1, 9, (event(first, c.Match("app", "wf", workflow="wf")),)))
    (started,) = bench.claim()
    assert (started.run.kind, started.run.name, started.run.depth) == ("workflow", "wf", 1)
    bench.record(started.lease, 1, ChildStarted("kid", "w"))
    (kid,) = bench.claim()
    own = bench.do(c.Record(kid.lease, 1, 9, (event(c.NewEvent("e2", "t", "2026", "h")),))).own
    assert '"type":"TooLarge"' in own[0].data
    assert_lawful(bench.store, bench.settings)


def test_an_event_that_starts_a_workflow_is_its_input(bench: Bench) -> None:
    bench.do(c.AcceptEvent(NEW, (c.Match("app", "wf", workflow="shop:order", version="3"),)))
    (turn,) = bench.claim(requires=("workflow:shop:order",))
    assert (turn.kind, turn.input, turn.run.version) == ("turn", None, "3")
    assert turn.event is not None
    assert turn.event.id == "e"


@pytest.mark.parametrize("draft", [c.Draft(EventSent("e"), "k"), event(c.NewEvent("f", "t", "2026", "h"))])
def test_an_event_entry_without_its_event_is_refused(bench: Bench, draft: c.Draft) -> None:
    wrong = c.Draft(EventSent("e"), "k", draft.sends)
    bench.refused(c.Record(bench.turn().lease, 1, 9, (wrong,)), errors.Invalid)


# ── actions, children, values ────────────────────────────────────────────────────────────────────────────────────


def test_a_canceled_action_ends_at_once_and_its_worker_hears_stale(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f"), key="a")
    (action,) = bench.claim()
    (entry,) = bench.record(lease, 2, ActionCanceled(), key="a").own
    assert entry.data == '{"task":3}'
    assert bench.run().open_actions == 0
    bench.refused(c.Finish(action.lease, 1, c.Completed()), errors.Stale)
    (beat,) = bench.do(c.Sync("w", (c.Beat(action.lease),))).tasks
    assert beat.error == "stale"
    assert bench.record(lease, 3, ActionCanceled(), key="a").own == [], "it is over: just the entry"
    assert bench.kinds().count("action.canceled") == 2


def test_a_canceled_action_that_had_ended_stays_ended(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f"), key="a")
    bench.do(c.Finish(bench.claim()[0].lease, 1, c.Completed("7")))
    bench.record(lease, 2, ActionCanceled(), key="a")
    assert (bench.kinds()[-2:], bench.run().open_actions) == (["action.completed", "action.canceled"], 0)


def test_an_action_may_be_scheduled_and_canceled_in_one_write(bench: Bench) -> None:
    drafts = (c.Draft(ActionScheduled("m:f"), "a"), c.Draft(ActionCanceled(), "a"))
    bench.do(c.Record(bench.turn().lease, 1, 9, drafts))
    assert bench.claim() == []


def test_a_child_takes_tags_deadline_and_delay(bench: Bench) -> None:
    later = bench.clock.now + 5_000
    child = ChildStarted("kid", "w", tags=raw('{"t":1}'), deadline=later + 1_000, due_at=later)
    bench.record(bench.turn().lease, 1, child)
    kid = bench.run("kid")
    assert (kid.tags, kid.deadline, bench.task("kid").due_at) == ('{"t":1}', later + 1_000, later)


@pytest.mark.parametrize("body", [ActionScheduled("m:f"), ActionCanceled(), StateSet("s"), SignalSent("r", "s")])
def test_what_has_an_effect_needs_a_key(bench: Bench, body: Body) -> None:
    bench.refused(c.Record(bench.turn().lease, 1, 9, (c.Draft(body),)), errors.Invalid)


# ── limits of actions ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_action_tells_its_worker_its_limits(bench: Bench) -> None:
    deadline = bench.clock.now + 9_000
    body = ActionScheduled("m:f", retry=raw('{"max_attempts":2}'), timeout_ms=5, heartbeat_ms=6, deadline=deadline)
    bench.record(bench.turn().lease, 1, body)
    (task,) = bench.claim()
    assert (task.retry, task.timeout_ms, task.heartbeat_ms) == ('{"max_attempts":2}', 5, 6)
    assert task.deadline == deadline


@pytest.mark.parametrize("state", ["ready", "due", "leased", "held", "expired"])
def test_an_action_past_its_deadline_fails_wherever_it_is(bench: Bench, state: str) -> None:
    lease = bench.turn().lease
    due_at = bench.clock.now + 900_000 if state == "due" else None
    bench.record(lease, 1, ActionScheduled("m:f", deadline=bench.clock.now + 10_000, due_at=due_at))
    if state in ("leased", "expired"):
        bench.claim(lease_ms=5_000 if state == "expired" else 120_000)
    if state == "held":
        bench.do(c.HoldRun("r"))
    bench.do(c.Sweep())
    assert bench.run().open_actions == 1
    bench.clock.tick(10_000)
    assert [task.kind for task in bench.claim()] == []
    bench.do(c.Sweep())
    failed = next(entry for entry in bench.journal() if entry.kind == "action.failed")
    attempts = 1 if state in ("leased", "expired") else 0
    assert f'"type":"StepTimeout","message":"the action is past its deadline","attempts":{attempts}' in failed.data
    assert bench.run().open_actions == 0


def test_a_failed_action_says_after_how_many_attempts(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f", retry=raw('{"max_attempts":2,"initial_ms":0}')))
    for _ in range(2):
        bench.do(c.Fail(bench.claim()[0].lease, 1, '{"type":"X","message":"m"}'))
        bench.do(c.Fire())
    assert bench.journal()[-1].data == '{"task":3,"error":{"type":"X","message":"m","attempts":2}}'


# ── holds and unread signals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_holds_what_it_cannot_go_on_with(bench: Bench) -> None:
    lease = bench.turn().lease
    held = c.Release(lease, 1, hold="mismatch", diff="- a\n+ b")
    assert bench.do(held) == bench.do(held) == c.Done("held", "waiting")
    assert bench.journal()[-1].data == '{"reason":"mismatch","by":"w","diff":"- a\\n+ b"}'
    assert bench.do(c.ReleaseRun("r")).status == "queued"
    bench.refused(c.Release(lease, 2, hold="mismatch"), errors.Stale)


def test_a_hold_of_a_run_that_was_asked_to_cancel_ends_it(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.Cancel("r"))
    assert bench.do(c.Release(lease, 1, hold="poison")).status == "canceled"


def test_a_worker_may_not_hold_for_reasons_of_people_nor_from_an_action(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.refused(c.Release(lease, 1, hold="paused"), errors.Invalid)
    bench.record(lease, 1, ActionScheduled("m:f"))
    bench.refused(c.Release(bench.claim()[0].lease, 1, hold="mismatch"), errors.Invalid)


def test_unread_signals_are_told_when_a_run_parks_and_when_it_ends(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.Park(lease, 1, 9, ("signal:a",), unread=("b", "c")))
    assert '"unread":["b","c"]' in bench.journal()[-1].data
    bench.do(c.Signal("r", "a"))
    bench.do(c.Finish(bench.claim()[0].lease, 1, c.Completed(), unread=("b",)))
    assert '"unread":["b"]' in bench.journal()[-1].data
    other = bench.turn("r2").lease
    bench.refused(c.Fail(other, 1, "{}", unread=("x",) * 101), errors.Invalid)
    bench.do(c.Fail(other, 1, "{}", unread=("b",)))
    assert '"unread":["b"]' in bench.journal("r2")[-1].data

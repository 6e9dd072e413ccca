"""Events: all or nothing, once per id and body, matched against manifests that are still true (law 5)."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.ids import flow_run_id
from stepwell.model.rows import Manifest
from tests.support import Bench

MATCHES = (c.Match("flow", "one", pool="p", pool_key="k", priority=3), c.Match("flow", "two", version="v"))


def event(event_id: str = "e", body: str = "h", payload: str = '{"x":1}') -> c.NewEvent:
    return c.NewEvent(event_id, "type", "2026-01-01T00:00:00Z", body_hash=body, payload=payload)


def test_an_event_comes_with_its_runs(bench: Bench) -> None:
    accepted = bench.do(c.AcceptEvent(event(), MATCHES, by="me"))
    assert (accepted.status, accepted.matched) == ("accepted", 2)
    assert accepted.run_ids == [flow_run_id("main", "e", "flow", step, 0) for step in ("one", "two")]
    one = bench.run(accepted.run_ids[0])
    assert (one.kind, one.name, one.pool, one.pool_key, one.priority) == ("step", "flow/one", "p", "k", 3)
    claimed = {task.run.id: task for task in bench.claim()}
    assert set(claimed) == set(accepted.run_ids)
    step = claimed[one.id]
    assert step.event is not None
    assert (step.kind, step.event.id, step.event.payload, step.journal) == ("step", "e", '{"x":1}', [])


def test_the_same_event_again_is_a_duplicate_with_the_same_runs(bench: Bench) -> None:
    first = bench.do(c.AcceptEvent(event(), MATCHES))
    again = bench.do(c.AcceptEvent(event(), ()))
    assert (again.status, again.run_ids) == ("duplicate", first.run_ids)
    batch = bench.all(c.AcceptEvent(event("b"), MATCHES[:1]), c.AcceptEvent(event("b"), MATCHES[:1]))
    assert [reply.status for reply in batch] == ["accepted", "duplicate"]
    assert batch[0].run_ids == batch[1].run_ids


def test_the_same_id_with_another_body_is_a_conflict(bench: Bench) -> None:
    bench.do(c.AcceptEvent(event()))
    assert bench.refused(c.AcceptEvent(event(body="other")), errors.Conflict).fields["event_id"] == "e"


def test_an_event_without_matches_is_kept(bench: Bench) -> None:
    assert bench.do(c.AcceptEvent(event(), misses='["no"]')).run_ids == []
    with bench.reader() as reader:
        kept = reader.event("main", "e")
    assert kept is not None
    assert (kept.matched, kept.misses, kept.created_at) == (0, '["no"]', bench.clock.now)


def test_an_event_of_another_scope_is_another_event(bench: Bench) -> None:
    here = bench.do(c.AcceptEvent(event(), MATCHES))
    there = bench.do(c.AcceptEvent(event(body="other"), MATCHES, scope="b"))
    assert not set(here.run_ids) & set(there.run_ids)
    bench.refused(c.ReplayEvent("e", scope="c"), errors.Unknown)
    assert {task.run.scope for task in bench.claim(scope="b")} == {"b"}


def test_a_replay_makes_new_runs_that_name_the_first(bench: Bench) -> None:
    first = bench.do(c.AcceptEvent(event(), MATCHES)).run_ids
    second = bench.do(c.ReplayEvent("e", MATCHES[:1])).run_ids
    third = bench.do(c.ReplayEvent("e", MATCHES)).run_ids
    assert len({*first, *second, *third}) == 5
    assert f'"replays":"{first[0]}"' in bench.journal(third[0])[0].data
    assert [bench.run(one).replay for one in (first[0], second[0], third[0])] == [0, 1, 2]
    assert bench.do(c.AcceptEvent(event())).run_ids == [*first, *second, *third]
    bench.refused(c.ReplayEvent("nobody", ()), errors.Unknown)


def test_matching_on_old_manifests_is_outdated_and_changes_nothing(bench: Bench) -> None:
    assert bench.do(c.SyncManifests((("f", "1", "h1", "{}"),))) == c.Revision(1, changed=True)
    refusal = bench.refused(c.AcceptEvent(event(), MATCHES), errors.Outdated)
    assert refusal.fields["revision"] == 1
    with bench.reader() as reader:
        assert reader.scan_events() == []
        assert reader.scan_runs() == []
    assert bench.do(c.AcceptEvent(event(), MATCHES, manifests_at=1)).status == "accepted"
    bench.refused(c.ReplayEvent("e", MATCHES, manifests_at=0), errors.Outdated)
    assert bench.do(c.AcceptEvent(event(), ())).status == "duplicate"


def test_manifests_have_a_revision_that_rises_with_a_change(bench: Bench) -> None:
    def sync(*rows: tuple[str, str, str, str]) -> c.Revision:
        revision: c.Revision = bench.do(c.SyncManifests(rows))
        return revision

    assert sync() == c.Revision(0, changed=False)
    assert sync(("f", "1", "h1", "{}"), ("g", "1", "h1", "{}")).revision == 1
    assert sync(("g", "9", "h1", "{}"), ("f", "1", "h1", "{}")) == c.Revision(1, changed=False)
    assert sync(("f", "2", "h2", "[]")).revision == 2
    with bench.reader() as reader:
        assert reader.manifests("main") == [Manifest("main", "f", "2", "h2", bench.clock.now, "[]")]
    assert bench.do(c.SyncManifests((), scope="b")).revision == 0


def test_a_sync_keeps_what_is_not_the_senders_alone(bench: Bench) -> None:
    mine, theirs = ("f", "1", "h1", "{}"), ("app:shop", "1", "h1", "{}")
    bench.do(c.SyncManifests((mine, theirs)))
    assert bench.do(c.SyncManifests((mine,), keeps="app:")) == c.Revision(1, changed=False)
    assert bench.do(c.SyncManifests((), keeps="app:")) == c.Revision(2, changed=True)
    with bench.reader() as reader:
        assert [one.name for one in reader.manifests("main")] == ["app:shop"]
    assert bench.do(c.SyncManifests((mine,), keeps="")) == c.Revision(3, changed=True)
    assert bench.do(c.SyncManifests((), keeps="")) == c.Revision(3, changed=False)
    assert bench.do(c.SyncManifests(())) == c.Revision(4, changed=True)


def test_a_match_can_be_a_workflow_whose_input_is_the_event(bench: Bench) -> None:
    match = c.Match("ci", "look", version="2", workflow="ci:review", requires="flow:ci", deadline_ms=5_000)
    (run_id,) = bench.do(c.AcceptEvent(event(), (match,))).run_ids
    run = bench.run(run_id)
    assert (run.kind, run.name, run.version, run.input) == ("workflow", "ci:review", "2", None)
    assert run.deadline == bench.clock.now + 5_000
    assert bench.claim(requires=("flow:ci",)) == []
    (leased,) = bench.claim(requires=("workflow:ci:review",))
    assert (leased.kind, leased.event and leased.event.id) == ("turn", "e")
    for wrong, error in (("", errors.Invalid), ("a\nb", errors.Invalid), ("x" * 129, errors.TooLarge)):
        bench.refused(c.AcceptEvent(event("f"), (c.Match("ci", "look", workflow=wrong),)), error)
    bench.refused(c.AcceptEvent(event("f"), (c.Match("ci", "look", deadline_ms=1 << 62),)), errors.Invalid)


def test_one_bad_match_takes_the_whole_event_back(bench: Bench) -> None:
    twice = (c.Match("flow", "one"), c.Match("flow", "one"))
    bench.refused(c.AcceptEvent(event(), twice), errors.Exists)
    with bench.reader() as reader:
        assert (reader.scan_events(), reader.scan_runs()) == ([], [])


def test_a_failed_step_is_tried_again_as_its_match_says(bench: Bench) -> None:
    bench.do(c.AcceptEvent(event(), (c.Match("f", "s", retry='{"max_attempts":2,"initial_ms":100}'),)))
    (step,) = bench.claim()
    done = bench.do(c.Fail(step.lease, 1, "{}"))
    assert (done.state, done.status) == ("due", "queued")
    bench.clock.now = done.next_at
    bench.do(c.Fire())
    (again,) = bench.claim()
    assert (again.attempt, again.failures) == (2, 1)
    done = bench.do(c.Fail(again.lease, 1, '{"m":1}', result='{"status":"blocked"}', result_status="blocked"))
    assert (done.state, done.status) == ("done", "failed")
    run = bench.run(step.run.id)
    assert (run.result_status, run.result, run.error) == ("blocked", '{"status":"blocked"}', '{"m":1}')
    assert run.needs_attention


@pytest.mark.parametrize("status", ["skipped", "completed", "changed", "needs_intervention", "blocked", "failed"])
def test_what_a_flow_says_of_itself_is_kept(bench: Bench, status: str) -> None:
    (run_id,) = bench.do(c.AcceptEvent(event(), (c.Match("f", "s"),))).run_ids
    bench.do(c.Finish(bench.claim()[0].lease, 1, c.Completed("{}", status)))
    run = bench.run(run_id)
    assert (run.status, run.result_status) == ("completed", status)
    assert run.needs_attention == (status in ("needs_intervention", "blocked", "failed"))

"""Area D, the component that leases runs to workers: the same duties are the kernel's here, and so are its rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.events import parse_event
from stepwell.flows.package import Flow, Step, Trigger
from stepwell.flows.schemas import Schemas
from stepwell.flows.trigger import match
from stepwell.flows.views import accepted_view
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.ids import flow_run_id, token_hash
from stepwell.model.rows import Event, Run
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import RunFilter
from tests.support import Bench, assert_lawful
from tests.support.bench import LEASE_MS

STEP = (c.Match("flow", "step", version="1", requires="flow:flow"),)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench whose store must be lawful at the end of the test."""
    bench = Bench(MemoryStore(), settings=Settings(lost_leases=3))
    yield bench
    bench.close()
    assert_lawful(bench.store, bench.settings)


def accept(bench: Bench, event_id: str, matches: tuple[c.Match, ...] = STEP, at: int = 0) -> c.Accepted:
    event = c.NewEvent(event_id, "type", "2026-01-01T00:00:00Z", body_hash=event_id, payload="{}")
    accepted: c.Accepted = bench.do(c.AcceptEvent(event, matches, at))
    return accepted


def leased(bench: Bench, event_id: str = "e") -> tuple[str, c.Leased]:
    """A run of a new event and its lease."""
    (run_id,) = accept(bench, event_id).run_ids
    (lease,) = bench.claim()
    return run_id, lease


def test_fault_24_events_with_similar_ids_both_run(bench: Bench) -> None:
    ids = ["a/b", "A-b", "a-b", "a b", "ä-b", "a:b", "a%2Fb", " a-b"]
    runs = [run_id for event_id in ids for run_id in accept(bench, event_id).run_ids]
    assert len(set(runs)) == len(ids)
    events = [one.event for one in bench.claim()]
    assert sorted(event.id for event in events if isinstance(event, Event)) == sorted(ids)


def test_fault_24_replays_of_one_moment_are_runs_of_their_own(bench: Bench) -> None:
    (first,) = accept(bench, "e").run_ids
    replays = bench.all(*(c.ReplayEvent("e", STEP) for _ in range(5)))
    assert len({first, *(reply.run_ids[0] for reply in replays)}) == 6
    assert len(bench.claim()) == 6


def test_fault_25_a_cancel_sticks_whatever_the_worker_does(bench: Bench) -> None:
    run_id, task = leased(bench)
    bench.do(c.Cancel(run_id, reason="enough"))
    (told,) = bench.do(c.Sync("w", (c.Beat(task.lease),))).tasks
    assert told.cancel, "the worker is told with its next heartbeat"
    bench.clock.tick(LEASE_MS + 1)
    bench.do(c.Sweep())
    assert bench.run(run_id).status == "canceled"
    assert bench.journal(run_id)[-1].kind == "run.canceled"
    for late in (c.Finish(task.lease, 1, c.Completed()), c.Fail(task.lease, 1, "{}"), c.Release(task.lease, 1)):
        bench.refused(late, errors.Ended)
    assert bench.do(c.Sync("w", (c.Beat(task.lease),))).tasks[0].error == "ended"
    assert bench.claim() == []


@pytest.mark.parametrize("command", [c.Cancel, c.Terminate])
def test_fault_25_what_has_failed_is_not_called_canceled(bench: Bench, command: type[c.Cancel | c.Terminate]) -> None:
    run_id, task = leased(bench)
    bench.do(c.Fail(task.lease, 1, '{"type":"exit"}'))
    before = bench.run(run_id)
    assert before.status == "failed"
    bench.all(command(run_id))
    assert bench.run(run_id) == before


def test_fault_27_lost_leases_are_bounded_and_back_off(bench: Bench) -> None:
    run_id, _ = leased(bench)
    waits = []
    for _ in range(100):
        bench.clock.tick(LEASE_MS + 1)
        bench.do(c.Sweep())
        if bench.run(run_id).hold is not None:
            break
        due = bench.task(run_id).due_at
        waits.append(0 if due is None else due - bench.clock.now)
        bench.clock.tick(waits[-1])
        bench.do(c.Fire())
        assert len(bench.claim()) == 1
    assert bench.run(run_id).hold == "poison"
    assert bench.kinds(run_id).count("attempt.started") == 3
    assert waits[0] == 0 < waits[1]
    bench.do(c.ReleaseRun(run_id))
    assert len(bench.claim()) == 1, "somebody may let it go on"


def test_fault_27_failures_are_tried_as_often_as_the_policy_says(bench: Bench) -> None:
    policy = '{"max_attempts":3,"initial_ms":1000,"factor":2.0,"max_ms":60000}'
    (run_id,) = accept(bench, "e", (c.Match("flow", "step", retry=policy),)).run_ids
    for _ in range(3):
        (task,) = bench.claim()
        bench.do(c.Fail(task.lease, 1, "{}"))
        assert bench.claim() == [], "not at once"
        bench.clock.tick(60_000)
        bench.do(c.Fire())
    assert (bench.run(run_id).status, bench.claim()) == ("failed", [])


def test_fault_28_all_expired_leases_are_swept_at_once_and_who_waits_goes_first(bench: Bench) -> None:
    old = [accept(bench, f"old{n}").run_ids[0] for n in range(20)]
    assert len(bench.claim()) == 20
    bench.clock.tick(1)
    (waiting,) = accept(bench, "waiting").run_ids
    bench.clock.tick(LEASE_MS - 1)
    assert bench.do(c.Sweep()).count == 0, "a lease is good until its last millisecond"
    bench.clock.tick(1)
    assert bench.do(c.Sweep()).count == 20
    assert {bench.run(run_id).status for run_id in old} == {"queued"}
    assert [task.run.id for task in bench.claim(limit=1)] == [waiting]


def test_fault_28_a_worker_is_given_only_what_it_has(bench: Bench) -> None:
    (run_id,) = accept(bench, "e").run_ids
    assert bench.claim(requires=("flow:other",)) == []
    assert bench.claim(pools=("other",)) == []
    assert [task.run.id for task in bench.claim(requires=("flow:flow",))] == [run_id]


def test_fault_29_the_token_is_no_function_of_what_others_know(bench: Bench) -> None:
    accept(bench, "a")
    accept(bench, "b")
    one, two = bench.claim(limit=1)[0].lease, bench.claim(limit=1)[0].lease
    assert one.token != two.token
    guesses = [two.token, one.token[:-1], "", f"{one.run_no}:w:{bench.clock.now}", token_hash(one.token)]
    for guess in guesses:
        bench.refused(c.Finish(c.Lease(one.run_no, one.k, one.epoch, guess), 1, c.Completed()), errors.Stale)
    bench.do(c.Finish(one, 1, c.Completed()))


@pytest.mark.parametrize("lease_ms", [float("nan"), float("inf"), -1, 0, 10**9, True, "120000"])
def test_fault_29_a_lease_has_a_whole_and_bounded_time(bench: Bench, lease_ms: Any) -> None:
    run_id, task = leased(bench, "other")
    accept(bench, "e")
    bench.refused(c.Claim("w", "s", lease_ms=lease_ms), errors.Invalid)
    bench.refused(c.Sync("w", (c.Beat(task.lease),), lease_ms=lease_ms), errors.Invalid)
    assert bench.task(run_id).lease_until == bench.clock.now + LEASE_MS


def test_fault_30_runs_are_found_by_event_and_status_together(bench: Bench) -> None:
    (done, *_), _ = accept(bench, "e", (*STEP, c.Match("flow", "two"))).run_ids, accept(bench, "other")
    task = next(one for one in bench.claim() if one.run.id == done)
    bench.do(c.Finish(task.lease, 1, c.Completed()))
    with bench.reader() as reader:
        event = reader.event("main", "e")
        assert event is not None

        def found(status: str) -> list[Run]:
            return list(reader.list_runs(RunFilter(event_no=event.no, status=status), limit=10, before=None).rows)

        assert [run.id for run in found("completed")] == [done]
        assert [run.name for run in found("running")] == ["flow/two"]
        assert found("failed") == []


def test_fault_31_manifests_that_are_gone_are_gone_and_stale_matches_start_nothing(bench: Bench) -> None:
    def manifest(name: str, version: str) -> tuple[str, str, str, str]:
        return (name, version, f"hash of {version}", "{}")

    both = bench.do(c.SyncManifests((manifest("flow", "2"), manifest("other", "1"))))
    one = bench.do(c.SyncManifests((manifest("flow", "2"),)))
    with bench.reader() as reader:
        assert [(row.name, row.version) for row in reader.manifests("main")] == [("flow", "2")]
    with pytest.raises(errors.Outdated):
        accept(bench, "e", at=both.revision)
    with bench.reader() as reader:
        assert reader.event("main", "e") is None
    (run_id,) = accept(bench, "e", at=one.revision).run_ids
    assert bench.run(run_id).version == "1"


def test_fault_32_a_result_is_json_with_a_bound(bench: Bench) -> None:
    run_id, task = leased(bench)
    for bad in ("", "{", "undefined", '{"a":1} {"b":2}', "NaN"):
        bench.refused(c.Finish(task.lease, 1, c.Completed(bad)), errors.Invalid)
    large = f'"{"x" * bench.settings.payload_bytes}"'
    bench.refused(c.Finish(task.lease, 1, c.Completed(large)), errors.TooLarge)
    assert bench.run(run_id).status == "running"
    bench.do(c.Finish(task.lease, 1, c.Completed('{"status":"changed"}', "changed")))


def test_a_late_end_after_another_lease_is_refused(bench: Bench) -> None:
    """Suggested in 8.6: nothing of the first worker counts once somebody else has the run."""
    run_id, first = leased(bench)
    bench.clock.tick(LEASE_MS + 1)
    bench.do(c.Sweep())
    (second,) = bench.claim(worker="w2")
    bench.refused(c.Finish(first.lease, 1, c.Completed()), errors.Stale)
    bench.do(c.Finish(second.lease, 1, c.Completed()))
    assert bench.run(run_id).status == "completed"


# ── the three tests of the original (8.3) ────────────────────────────────────────────────────────────────────────


def test_8_3_1_an_event_gets_a_time_and_keeps_the_rest() -> None:
    found = parse_event({"id": "e", "type": "t", "payload": {"a": [1]}}, now_iso="2026-05-13T13:36:00.000Z")
    assert (found.id, found.type, found.payload, found.received_at) == (
        "e", "t", {"a": [1]}, "2026-05-13T13:36:00.000Z",
    )  # fmt: skip


def test_8_3_2_a_step_is_matched_by_the_type_of_the_event() -> None:
    steps = [Step(name, "bun", "a.ts", trigger=Trigger(type_)) for name, type_ in (("generate", "asset"), ("x", "y"))]
    flow = Flow(Path("/f"), Path("/f/flow.toml"), "player-character-asset", 1, steps=tuple(steps))
    found = match([flow], parse_event({"id": "e", "type": "asset"}, now_iso="-"), Schemas()).matches
    assert [(one.flow.name, one.step.name) for one in found] == [("player-character-asset", "generate")]


def test_8_3_3_run_ids_and_answers_repeat(bench: Bench) -> None:
    assert flow_run_id("main", "e", "flow", "step", 0) == flow_run_id("main", "e", "flow", "step", 0)
    assert flow_run_id("main", "e", "flow", "step", 0) != flow_run_id("main", "e", "flow", "step", 1)
    first = accepted_view(accept(bench, "e"))
    (run_id,) = first["runIds"]
    assert first == {"status": "accepted", "eventId": "e", "runIds": [run_id], "matched": 1}
    assert accepted_view(accept(bench, "e")) == {
        "status": "duplicate",
        "eventId": "e",
        "runIds": [run_id],
        "matched": 0,
    }


# ── what a fault hid from an event (fault 1) ─────────────────────────────────────────────────────────────────────

HIDDEN = '[{"flow":"flow","step":"step","reason":"broken","fault":true},{"flow":"flow","step":"no","reason":"unfit"}]'


def test_fault_1_what_was_hidden_is_made_up_for_once_and_nothing_else(bench: Bench) -> None:
    event = c.NewEvent("e", "type", "2026-01-01T00:00:00Z", body_hash="h", payload="{}")
    assert bench.do(c.AcceptEvent(event, (), misses=HIDDEN)).run_ids == []
    found = (*STEP, c.Match("flow", "no"), c.Match("flow", "new"))
    bench.do(c.SyncManifests((("flow", "2", "hash", "{}"),)))
    bench.refused(c.AcceptEvent(event, found, 0), errors.Outdated)
    assert bench.claim() == []
    again = bench.all(*(c.AcceptEvent(event, found, 1) for _ in range(3)))
    assert [(one.status, one.matched, len(one.run_ids)) for one in again] == [
        ("duplicate", 1, 1), ("duplicate", 0, 1), ("duplicate", 0, 1),
    ]  # fmt: skip
    assert [task.run.name for task in bench.claim()] == ["flow/step"]

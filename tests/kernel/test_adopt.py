"""Adopting: what ended elsewhere becomes a run like others, with its id and its times."""

from typing import Any

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful
from tests.support.bench import START_MS

AT = START_MS - 1_000_000


def old(run_id: str = "run_0123", **more: Any) -> c.AdoptedRun:
    given: dict[str, Any] = {
        "id": run_id,
        "flow": "f",
        "step": "s",
        "created_at": AT,
        "started_at": AT + 5,
        "ended_at": AT + 9,
        "status": "completed",
        "result": '{"status":"changed"}',
        "result_status": "changed",
        "requires": "flow:f",
    }
    return c.AdoptedRun(**{**given, **more})  # fmt: skip


def adopt(*runs: c.AdoptedRun, body: str = "h") -> c.AdoptEvent:
    return c.AdoptEvent(c.NewEvent("e:1/ü", "t", "2025", body), AT - 1, runs, worker="elsewhere", by="import")


def test_ids_times_and_results_are_kept(bench: Bench) -> None:
    assert bench.do(adopt(old(output=(("stdout", "hello"),)))).status == "adopted"
    run = bench.run("run_0123")
    assert (run.created_at, run.started_at, run.ended_at) == (AT, AT + 5, AT + 9)
    assert (run.status, run.result_status, run.result) == ("completed", "changed", '{"status":"changed"}')
    assert bench.kinds("run_0123") == ["run.created", "attempt.started", "run.completed"]
    with bench.reader() as reader:
        event = reader.event("main", "e:1/ü")
        assert event is not None
        assert (event.created_at, event.matched, event.received_at) == (AT - 1, 1, "2025")
        assert [(one.kind, one.text, one.at) for one in reader.output(run.no)] == [("stdout", "hello", AT + 9)]


def test_nobody_is_given_what_was_adopted(bench: Bench) -> None:
    bench.do(adopt(old()))
    assert bench.claim() == []


def test_twice_is_once(bench: Bench) -> None:
    bench.do(adopt(old()))
    again = bench.do(adopt(old(), old("run_more")))
    assert (again.status, again.run_ids) == ("present", ["run_0123"])
    bench.refused(adopt(old(), body="other"), errors.Conflict)


def test_a_redelivery_is_a_duplicate_and_a_replay_makes_new_runs(bench: Bench) -> None:
    bench.do(adopt(old(), old("run_0123_replay", replay=1)))
    event = c.NewEvent("e:1/ü", "t", "2026", "h")
    assert bench.do(c.AcceptEvent(event)).run_ids == ["run_0123", "run_0123_replay"]
    made = msgspec.json.decode(bench.journal("run_0123_replay")[0].data)
    assert (made["replay"], made["replays"]) == (1, "run_0123")
    replayed = bench.do(c.ReplayEvent("e:1/ü", (c.Match("f", "s"),)))
    assert bench.run(replayed.run_ids[0]).replay == 2


def test_a_failed_one_can_be_run_again(bench: Bench) -> None:
    bench.do(adopt(old(status="failed", error='{"type":"lost"}', result=None)))
    bench.do(c.Restart("run_0123"))
    (held,) = bench.claim(requires=("flow:f",))
    bench.do(c.Finish(held.lease, 1, c.Completed()))
    assert bench.run("run_0123").status == "completed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "running"}, {"status": "queued"}, {"started_at": AT - 1}, {"ended_at": AT + 1},
        {"created_at": -1}, {"ended_at": START_MS + 1}, {"result": "no json"}, {"flow": ""}, {"replay": -1},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_with_all_of_its_event(bench: Bench, wrong: dict[str, Any]) -> None:
    bench.refused(adopt(old("good"), old(**wrong)), errors.Invalid)
    with bench.reader() as reader:
        assert reader.event("main", "e:1/ü") is None
        assert reader.run("main", "good") is None


def test_an_id_that_is_taken_is_refused(bench: Bench) -> None:
    bench.start("run_0123")
    bench.refused(adopt(old()), errors.Exists)


def test_output_beyond_the_bound_ends_with_the_mark() -> None:
    bench = Bench(MemoryStore(), settings=Settings(output_bytes=1_024))
    bench.do(adopt(old(output=(("stdout", "a" * 1_000), ("stdout", "b" * 1_000), ("stdout", "c")))))
    with bench.reader() as reader:
        kept = reader.output(bench.run("run_0123").no)
    assert [one.kind for one in kept] == ["stdout", "system"]
    assert_lawful(bench.store, bench.settings)


def test_a_run_that_never_started_has_no_attempt(bench: Bench) -> None:
    bench.do(adopt(old(status="failed", started_at=None)))
    assert bench.kinds("run_0123") == ["run.created", "run.failed"]
    assert bench.run("run_0123").started_at is None

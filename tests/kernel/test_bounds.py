"""Bounds: each has a limit and an error that names it (law 10); what is large lies beside the journal, not in it."""

from collections.abc import Iterator
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted, raw
from stepwell.model.settings import RANGES, Settings, settings_from
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

SMALL = Settings(
    payload_bytes=4_096, blob_over_bytes=1_024, journal_entries=100, journal_bytes=64 * 1_024, output_bytes=1_024
)
BIG = '"' + "x" * 2_000 + '"'
WIDE = '"' + "é" * 600 + '"'  # 602 characters, 1,202 bytes
OVER = '"' + "x" * 6_000 + '"'


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(MemoryStore(), settings=SMALL)
    yield bench
    assert_lawful(bench.store, SMALL)


def too_large(bench: Bench, command: c.Command, what: str) -> None:
    refusal = bench.refused(command, errors.TooLarge)
    assert refusal.fields["what"] == what
    assert refusal.fields["size"] > refusal.fields["limit"]
    assert refusal.hint


def test_every_payload_has_a_bound(bench: Bench) -> None:
    lease = bench.turn().lease
    too_large(bench, c.StartRun("x", "wf", OVER), "input")
    too_large(bench, c.StartRun("x", "wf", tags=OVER), "tags")
    too_large(bench, c.Signal("r", "s", OVER), "payload")
    too_large(bench, c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", OVER)), "payload")
    too_large(bench, c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", extra=OVER)), "extra")
    too_large(bench, c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), misses=OVER), "misses")
    too_large(bench, c.SyncManifests((("f", "1", "h", OVER),)), "manifest")
    too_large(bench, c.Record(lease, 1, 9, (c.Draft(StepCompleted(raw(OVER)), "k"),)), "result")
    too_large(bench, c.Finish(lease, 1, c.Completed(OVER)), "result")
    too_large(bench, c.Finish(lease, 1, c.Continued("r2", OVER, 9)), "input")
    too_large(bench, c.Fail(lease, 1, OVER), "error")
    too_large(bench, c.Fail(lease, 1, "{}", result=OVER), "result")
    too_large(bench, c.Park(lease, 1, 9, (OVER,)), "waits")
    too_large(bench, c.HoldRun("r", diff=OVER), "diff")
    too_large(bench, c.Mutate(lease, 1, 9, "k", "m:f", OVER), "args")
    too_large(bench, c.Say(lease, 0, (("stdout", OVER),)), "output")
    (beat,) = bench.do(c.Sync("w", (c.Beat(lease, details=OVER),))).tasks
    assert beat.error is None, "the lease is extended all the same"
    assert "the limit is" in (beat.dropped or "")
    assert bench.kinds() == ["run.created", "attempt.started"]


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (c.StartRun(LONG, "wf"), errors.TooLarge),
        (c.StartRun("é" * 129, "wf"), errors.TooLarge),
        (c.StartRun("", "wf"), errors.Invalid),
        (c.StartRun("a\x00b", "wf"), errors.Invalid),
        (c.StartRun("a\nb", "wf"), errors.Invalid),
        (c.StartRun("a\ud800", "wf"), errors.Invalid),
        (c.StartRun("x", LONG), errors.TooLarge),
        (c.StartRun("x", ""), errors.Invalid),
        (c.StartRun("x", "wf", scope=""), errors.Invalid),
        (c.StartRun("x", "wf", pool=LONG), errors.TooLarge),
        (c.StartRun("x", "wf", pool_key=""), errors.Invalid),
        (c.StartRun("x", "wf", version=LONG), errors.TooLarge),
        (c.Signal("r", ""), errors.Invalid),
        (c.Signal("r", "s", dedup=""), errors.Invalid),
        (c.Signal("r", "s", dedup=LONG), errors.TooLarge),
        (c.AcceptEvent(c.NewEvent(LONG, "t", "2026", "h")), errors.TooLarge),
        (c.AcceptEvent(c.NewEvent("e", "", "2026", "h")), errors.Invalid),
        (c.AcceptEvent(c.NewEvent("e", "t", "", "h")), errors.Invalid),
        (c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", source="s" * 1_025)), errors.TooLarge),
        (c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", occurred_at="a\tb")), errors.Invalid),
        (c.SyncManifests((("", "1", "h", "{}"),)), errors.Invalid),
        (c.Sync("", ()), errors.Invalid),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_text_has_a_shape_and_a_size(bench: Bench, command: c.Command, error: type[errors.StepwellError]) -> None:
    bench.start()
    bench.refused(command, error)
    assert bench.run().head_seq == 1


@pytest.mark.parametrize(
    "command",
    [
        c.StartRun("x", "wf", '"\ud800"'),
        c.StartRun("x", "wf", tags='"\ud800"'),
        c.Signal("r", "s", '"\ud800"'),
        c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", '"\ud800"')),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_that_is_no_unicode_is_the_callers_fault(bench: Bench, command: c.Command) -> None:
    bench.start()
    bench.refused(command, errors.Invalid)


def test_ids_of_every_kind_of_letter_are_fine(bench: Bench) -> None:
    for run_id in ("x" * 256, "é" * 128, "a b", "a/b", "A-b", "🦀", "%'\"#:", " "):
        assert bench.start(run_id).created


@pytest.mark.parametrize("text", [BIG, WIDE])
def test_large_payloads_are_stored_once_beside_the_rows_and_read_in_full(bench: Bench, text: str) -> None:
    bench.start("kid-of-nobody", input=text)
    task = bench.turn("r") if bench.claim() else None
    assert task is not None
    scheduled = ActionScheduled("m:f", raw(text))
    head = bench.record(task.lease, 1, StepCompleted(raw(text)), scheduled, ChildStarted("kid", "w", input=raw(text)))
    bench.do(c.Signal("r", "s", text))
    kid, action = sorted(bench.claim(), key=lambda one: one.run.id)
    assert (kid.input, action.args) == (text, text)
    bench.do(c.Finish(kid.lease, 1, c.Completed(text)))
    bench.do(c.Finish(action.lease, 1, c.Completed(text)))
    bench.do(c.Deliver())
    missed = bench.record(task.lease, 2, StepCompleted(), key="z", seen=head.head).missed
    assert [text in entry.data for entry in missed] == [True, True, True]
    bench.do(c.Finish(task.lease, 3, c.Completed(text)))
    assert (bench.run("kid-of-nobody").input, bench.run().result) == (text, text)
    store = bench.store
    assert isinstance(store, MemoryStore)
    assert all(len(entry.data) < 200 for journal in store.tables.entries.values() for entry in journal)
    assert store.tables.runs[bench.run().no].result == "@" + next(
        digest for (no, _, digest), blob in store.tables.blobs.items() if no == bench.run().no and blob.data == text
    )


def test_an_event_with_a_large_payload_comes_in_full(bench: Bench) -> None:
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h", BIG), (c.Match("f", "s"),)))
    (step,) = bench.claim()
    assert step.event is not None
    assert step.event.payload == BIG


def test_the_threshold_of_a_blob_is_exact(bench: Bench) -> None:
    fits, over = '"' + "x" * 1_022 + '"', '"' + "x" * 1_023 + '"'
    bench.start("fits", input=fits)
    bench.start("over", input=over)
    store = bench.store
    assert isinstance(store, MemoryStore)
    stored = [run.input for run in store.tables.runs.values()]
    assert stored[0] == fits
    assert (stored[1] or "").startswith("@")


def test_a_journal_has_a_number_of_entries_and_says_what_to_do(bench: Bench) -> None:
    lease = bench.turn().lease
    bodies = [StepCompleted()] * 98
    bench.record(lease, 1, *bodies)
    refusal = bench.refused(c.Record(lease, 2, 100, (c.Draft(StepCompleted(), "k"),)), errors.TooLarge)
    assert refusal.fields == {"what": "journal_entries", "size": 101, "limit": 100}
    assert "continue" in refusal.hint.lower()
    bench.refused(c.Signal("r", "s"), errors.TooLarge)
    assert bench.do(c.Finish(lease, 2, c.Continued("r2", "1", 100))).status == "completed"


def test_a_journal_has_a_number_of_bytes(bench: Bench) -> None:
    lease = bench.turn().lease
    refusal = None
    for n in range(1, 40):
        reply = bench.all(c.Record(lease, n, 1_000, (c.Draft(StepCompleted(raw(BIG)), f"k{n}"),)))[0]
        if isinstance(reply, errors.TooLarge):
            refusal = reply
            break
    assert refusal is not None
    assert refusal.fields["what"] == "journal_bytes"
    assert bench.run().journal_bytes <= SMALL.journal_bytes < bench.run().journal_bytes + 2_100
    bench.do(c.Fail(lease, n, "{}"))


def test_output_is_ordered_repeatable_and_cut_once_with_a_mark(bench: Bench) -> None:
    lease = bench.turn().lease
    first = c.Say(lease, 0, (("stdout", "a"), ("agent", "b")))
    assert bench.do(first) == bench.do(first) == c.Said(2)
    refusal = bench.refused(c.Say(lease, 1, (("stdout", "x"), ("stderr", "y"))), errors.OutOfStep)
    assert refusal.fields == {"next": 2}
    bench.refused(c.Say(lease, 3, ()), errors.OutOfStep)
    assert bench.do(c.Say(lease, 2, (("stdout", "c" * 1_000),))) == c.Said(3)
    flood = c.Say(lease, 3, tuple(("stderr", "d" * 100) for _ in range(5)))
    assert bench.do(flood) == bench.do(flood) == c.Said(4, cut=True)
    assert bench.do(c.Say(lease, 4, (("stdout", "more"),))) == c.Said(4, cut=True)
    with bench.reader() as reader:
        said = reader.output(bench.run().no)
    assert [(row.n, row.kind) for row in said] == [(1, "stdout"), (2, "agent"), (3, "stdout"), (4, "system")]
    assert "1,024 bytes" in said[3].text
    assert "stdout" not in str(bench.journal())


def test_output_goes_on_where_the_last_attempt_stopped(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.do(c.Say(lease, 0, (("stdout", "a"),)))
    bench.do(c.Release(lease, 1))
    (again,) = bench.claim()
    assert again.output_n == 1
    bench.do(c.Say(again.lease, 1, (("stdout", "b"),)))
    with bench.reader() as reader:
        assert [(row.attempt, row.text) for row in reader.output(1)] == [(1, "a"), (2, "b")]


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", RANGES)
def test_every_setting_has_a_range_that_holds_at_its_ends(name: str) -> None:
    low, high = RANGES[name]
    variable = f"STEPWELL_{name.upper()}"
    for good in (low, high):
        assert getattr(settings_from({variable: str(good)}), name) == good
    for bad in (low - 1, high + 1, "", "1.5", "x", "True", "0x10"):
        if bad == "":
            assert settings_from({variable: ""}) == Settings()
            continue
        with pytest.raises(errors.Invalid, match=rf"(?i){name}") as caught:
            settings_from({variable: str(bad)})
        assert caught.value.hint


@pytest.mark.parametrize("bad", [True, 1.5, "5", None])
def test_a_setting_of_another_type_is_invalid(bad: object) -> None:
    values: dict[str, Any] = {"lease_ms": bad}
    with pytest.raises(errors.Invalid):
        Settings(**values)


def test_sync_is_full_unless_told_otherwise_and_the_beat_is_a_third_of_the_lease() -> None:
    assert settings_from({}).sync == "full"
    assert settings_from({"STEPWELL_SYNC": "normal"}).sync == "normal"
    with pytest.raises(Exception, match="off"):
        settings_from({"STEPWELL_SYNC": "off"})
    assert (Settings().beat_ms, Settings(heartbeat_ms=7_000).beat_ms) == (40_000, 7_000)


def test_a_journal_at_its_bound_ends_held_whatever_its_worker_does(bench: Bench) -> None:
    bench.start()
    for _ in range(150):
        for held in bench.claim():
            bench.do(c.Release(held.lease, 1))
    run = bench.run()
    assert (run.hold, run.status, run.head_seq < 110) == ("poison", "waiting", True)
    assert "the limit is 100" in bench.journal()[-1].data
    bench.do(c.Terminate("r"))


def test_a_journal_does_not_grow_past_its_bound_by_parking(bench: Bench) -> None:
    bench.start()
    replies: list[Any] = []
    for _ in range(50):
        for held in bench.claim():
            timer = c.Park(held.lease, 1, held.seen, ("timer:t",), bench.clock.now, "t")
            replies += bench.all(timer)
    assert type(replies[-1]) is errors.TooLarge
    assert bench.run().head_seq < 110


def test_a_task_that_is_released_as_broken_again_and_again_is_held(bench: Bench) -> None:
    bench.start()
    for tries in range(Settings().lost_leases):
        assert bench.run().hold is None, tries
        (held,) = bench.claim()
        bench.do(c.Release(held.lease, 1, 5_000, broken=True))
        bench.clock.tick(5_000)
        bench.settle()
    assert (bench.run().hold, bench.claim()) == ("poison", [])
    bench.do(c.ReleaseRun("r"))
    (held,) = bench.claim()
    assert bench.do(c.Release(held.lease, 1, broken=True)).state == "ready", "somebody looked at it: it counts anew"


def test_a_plain_release_is_no_sign_of_a_broken_task(bench: Bench) -> None:
    bench.start()
    for _ in range(3 * Settings().lost_leases):
        (held,) = bench.claim()
        bench.do(c.Release(held.lease, 1))
    assert bench.run().hold is None

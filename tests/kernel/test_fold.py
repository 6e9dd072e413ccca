"""The fold of every prefix of a journal is the row as it was then, and nothing but entries changes it (law 2)."""

from copy import copy
from typing import Any

import pytest

from stepwell.kernel import fold as folding
from stepwell.kernel import journal as writing
from stepwell.kernel.laws import check_run
from stepwell.model import commands as c
from stepwell.model.entries import (
    KINDS,
    ActionCanceled,
    ActionScheduled,
    Body,
    CancelSent,
    ChildStarted,
    EventSent,
    PatchMarked,
    SignalSent,
    StateSet,
    StepCompleted,
    StepRetried,
    raw,
)
from stepwell.model.rows import Entry, Run
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench
from tests.support.bench import LEASE_MS

Seen = dict[tuple[int, int], tuple[Run, Run]]
#: Only these reach a run by a role's command or another run; the story below has every kind.
BIG = raw('"' + "x" * 2_000 + '"')


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The row before and after each entry, as the rules made it."""
    seen: Seen = {}
    real = folding.apply

    def apply(run: Run, entry: Entry, body: Body, spill: Any) -> None:
        before = copy(run)
        real(run, entry, body, spill)
        seen[run.no, entry.seq] = (before, copy(run))

    monkeypatch.setattr(writing, "apply", apply)
    return seen


def story(bench: Bench) -> None:
    """Every kind of entry, on runs of both kinds."""
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s", retry='{"max_attempts":2}'),)))
    (step,) = bench.claim()
    bench.do(c.Fail(step.lease, 1, "{}"))
    turn = bench.turn(input=bytes(BIG).decode(), deadline=9_000_000_000_000)
    bodies = (StepCompleted(BIG), StepRetried(1, 5), ActionScheduled("m:f"), ActionScheduled("m:g"), PatchMarked("p"))
    bench.record(turn.lease, 1, *bodies, ChildStarted("kid", "w"), ChildStarted("kid2", "w"))
    said = (StateSet("s", BIG), SignalSent("kid", "s", BIG), CancelSent("kid2"), SignalSent("nobody", "s"))
    bench.record(turn.lease, 2, *said, ActionScheduled("m:h"), key="t")
    emission = c.Emission((c.Emitted(c.NewEvent("sent", "t", "2026", "h")),))
    sent = (c.Draft(EventSent("sent"), "e", emission), c.Draft(ActionCanceled(), "t4"))
    head = bench.do(c.Record(turn.lease, 3, 99, sent)).head
    bench.do(c.Park(turn.lease, 4, head, ("timer:t", "action:k2"), bench.clock.now + 1_000, "t"))
    for task in bench.claim():
        bench.do(c.Fail(task.lease, 1, "{}") if task.name == "m:f" else c.Finish(task.lease, 1, c.Completed("1")))
    bench.clock.tick(2_000)
    bench.settle()
    bench.claim(pools=("default",), requires=("",), limit=1)
    bench.do(c.Signal("r", "s", bytes(BIG).decode()))
    bench.do(c.HoldRun("r", "mismatch", diff="-"))
    bench.do(c.ReleaseRun("r"))
    bench.claim()
    bench.clock.tick(LEASE_MS + 1)
    bench.settle()
    (last,) = (one for one in bench.claim() if one.run.id == "r")
    bench.do(c.Cancel("r"))
    bench.do(c.Finish(last.lease, 1, c.Canceled()))
    bench.do(c.Restart("r", 4))
    (new,) = (one for one in bench.claim() if one.run.id == "r")
    bench.do(c.Finish(new.lease, 1, c.Continued("r2", "1", 100)))
    (onward,) = (one for one in bench.claim() if one.run.id == "r2")
    bench.do(c.Park(onward.lease, 1, 9, ("timer:t",), bench.clock.now + 1, "t"))
    bench.clock.tick(1)
    bench.do(c.Fire())
    (slept,) = (one for one in bench.claim() if one.run.id == "r2")
    bench.do(c.Park(slept.lease, 1, 9))
    bench.start("r2", reuse="replace", input="2")
    bench.do(c.Fail(bench.claim()[0].lease, 1, bytes(BIG).decode(), result="1", result_status="failed"))


def test_fold_of_every_prefix_is_the_row_as_it_was(watched: Seen) -> None:
    settings = Settings(blob_over_bytes=1_024)
    bench = Bench(MemoryStore(), settings=settings)
    story(bench)
    kinds: set[str] = set()
    with bench.reader() as reader:
        for run in reader.scan_runs():
            entries = reader.entries(run.no)
            kinds |= {entry.kind for entry in entries}
            _check_prefixes(watched, run, entries, bench)
            assert check_run(run, entries, reader.tasks_of(run.no), expects_message=True, settings=settings) == []
    assert kinds == set(KINDS)


def _check_prefixes(watched: Seen, run: Run, entries: list[Entry], bench: Bench) -> None:
    store = bench.store
    assert isinstance(store, MemoryStore)
    blobs = {blob.data: "@" + blob.hash for blob in store.tables.blobs.values()}

    def spill(number: int, text: str | None) -> str | None:
        return None if text is None else blobs.get(text, text)

    for length in range(len(entries) + 1):
        pairs = [(entry, folding.body_of(entry)) for entry in entries[:length]]
        folded = folding.fold(run.no, run.scope, run.id, pairs, spill)
        if length:
            assert watched[run.no, length][1] == folded, f"after entry {length} of {run.id}"
        if length < len(entries):
            assert watched[run.no, length + 1][0] == folded, f"before entry {length + 1} of {run.id}"


def entry(seq: int, kind: str, data: str = "{}") -> Entry:
    return Entry(1, seq, kind, None, 0, 1, 0, data)


def test_kept_follows_every_restart() -> None:
    def restarted(seq: int, keep: int) -> Entry:
        return entry(seq, "run.restarted", f'{{"generation":2,"keep_seq":{keep}}}')

    def seqs(*entries: Entry) -> list[int]:
        return [one.seq for one in folding.kept(entries)]

    plain = [entry(seq, "step.completed") for seq in range(1, 5)]
    assert seqs(*plain) == [1, 2, 3, 4]
    assert seqs(*plain, restarted(5, 2)) == [1, 2, 5]
    assert seqs(*plain, restarted(5, 0), entry(6, "x")) == [5, 6]
    assert seqs(*plain, restarted(5, 3), entry(6, "x"), restarted(7, 5)) == [1, 2, 3, 5, 7]
    assert seqs(*plain, restarted(5, 3), entry(6, "x"), restarted(7, 1)) == [1, 7]


def test_entries_out_of_order_do_not_fold() -> None:
    with pytest.raises(AssertionError, match="dense"):
        folding.fold(1, "main", "r", [(entry(2, "patch.marked"), PatchMarked("p"))], lambda number, text: text)

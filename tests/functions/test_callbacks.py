"""on_complete: a mutation in the commit that ends the run, for each way to end."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest

from stepwell.functions.contexts import MutationContext
from stepwell.functions.define import Completion
from stepwell.model import commands as c
from stepwell.model import errors
from tests.functions.shop import Counter, Shop, opened
from tests.support import STORES, Bench

CALLBACK = '{"function":"shop:told","context":{"order":7}}'


def told(ctx: MutationContext, completion: Completion) -> None:
    """Writes what it was told."""
    error = completion.error
    said = [completion.run_id, completion.kind, completion.value, error and error.message, completion.context]
    ctx.db.execute("insert into told (note) values (?)", msgspec.json.encode(said).decode())


def notes(counter: Counter) -> list[Any]:
    with counter.bench.reader() as reader, reader.snapshot():
        rows = reader.app.execute("select note from told order by id", (), 100).rows
    return [msgspec.json.decode(note) for (note,) in rows]


@pytest.fixture
def telling(counter: Counter) -> Counter:
    counter.shop.mutation(told)
    return counter


def finish(bench: Bench, run_id: str) -> None:
    bench.do(c.Finish(bench.turn(run_id, callback=CALLBACK).lease, 1, c.Completed('{"a":1}')))


def fail(bench: Bench, run_id: str) -> None:
    bench.do(c.Fail(bench.turn(run_id, callback=CALLBACK).lease, 1, '{"type":"E","message":"broken"}', retry=False))


def honour(bench: Bench, run_id: str) -> None:
    bench.do(c.Finish(bench.turn(run_id, callback=CALLBACK).lease, 1, c.Canceled("enough")))


def cancel(bench: Bench, run_id: str) -> None:
    bench.start(run_id, callback=CALLBACK)
    bench.do(c.Cancel(run_id, reason="late"))


def terminate(bench: Bench, run_id: str) -> None:
    bench.turn(run_id, callback=CALLBACK)
    bench.do(c.Terminate(run_id, reason="now"))


def expire(bench: Bench, run_id: str) -> None:
    bench.start(run_id, callback=CALLBACK, deadline=bench.clock.now + 10)
    bench.clock.tick(11)
    bench.settle()


ENDS: list[tuple[Callable[[Bench, str], None], str, Any, str | None]] = [
    (finish, "success", {"a": 1}, None),
    (fail, "failed", None, "broken"),
    (honour, "canceled", None, "enough"),
    (cancel, "canceled", None, "late"),
    (terminate, "canceled", None, "now"),
    (expire, "failed", None, "the run is past its deadline"),
]


@pytest.mark.parametrize(("end", "kind", "value", "message"), ENDS, ids=[one[0].__name__ for one in ENDS])
def test_every_end_is_told_once(
    telling: Counter, end: Callable[[Bench, str], None], kind: str, value: Any, message: str | None
) -> None:
    commits = telling.bench.lane.commits
    end(telling.bench, "r")
    assert telling.bench.lane.commits - commits <= 2
    telling.bench.settle()
    assert notes(telling) == [["r", kind, value, message, {"order": 7}]]
    assert "callback_error" not in telling.bench.journal()[-1].data


def test_a_callback_that_fails_is_told_of_and_changes_nothing_else(
    counter: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(ctx: MutationContext, completion: Completion) -> None:
        told(ctx, completion)
        ctx.start(counter.shop.order, 1)
        raise ValueError("no")

    counter.shop.mutation(bad, "told")
    finish(counter.bench, "r")
    run, end = counter.bench.run(), msgspec.json.decode(counter.bench.journal()[-1].data)
    assert (run.status, run.result) == ("completed", '{"a":1}')
    assert (end["callback_error"]["type"], end["callback_error"]["message"]) == ("ValueError", "no")
    assert notes(counter) == []
    (said,) = [one.getMessage() for one in caplog.records if one.name == "stepwell.callbacks"]
    assert said == "run r is completed, but its on_complete shop:told failed and changed nothing: ValueError: no"
    with counter.bench.reader() as reader:
        assert len(reader.scan_runs()) == 1


def test_a_callback_may_start_the_next_run_and_end_others(counter: Counter) -> None:
    def next_one(ctx: MutationContext, completion: Completion) -> None:
        told(ctx, completion)
        if completion.run_id == "r":
            ctx.cancel("other")
        ctx.options(id=f"after {completion.run_id}").start(counter.shop.order, 1)

    counter.shop.mutation(next_one, "told")
    lease = counter.bench.turn("r", callback=CALLBACK).lease
    counter.bench.start("other", callback=CALLBACK)
    counter.bench.do(c.Finish(lease, 1, c.Completed()))
    assert [note[:2] for note in notes(counter)] == [["r", "success"], ["other", "canceled"]]
    assert {counter.bench.run(f"after {one}").status for one in ("r", "other")} == {"queued"}


def test_a_continued_run_tells_at_its_last_end(telling: Counter) -> None:
    lease = telling.bench.turn("r", callback=CALLBACK).lease
    telling.bench.do(c.Finish(lease, 1, c.Continued("r2", "{}", seen=9)))
    assert notes(telling) == []
    (leased,) = telling.bench.claim()
    telling.bench.do(c.Finish(leased.lease, 1, c.Completed("2")))
    assert notes(telling) == [["r2", "success", 2, None, {"order": 7}]]


@pytest.mark.parametrize("name", sorted(STORES))
def test_a_callback_waits_for_who_knows_it_and_holds_up_nobody(tmp_path: Path, shop: Shop, name: str) -> None:
    with opened(name, tmp_path, shop) as counter:
        for number in range(3):
            finish(counter.bench, f"r{number}")
        parent = counter.bench.turn("parent").lease
        counter.bench.do(c.Park(parent, 1, 9, ("signal:x",)))
        counter.bench.settle()
        with counter.bench.reader() as reader:
            numbers = {counter.bench.run(f"r{number}").no for number in range(3)}
            assert reader.messages_to(numbers) == numbers
        assert notes(counter) == []
        shop.mutation(told)
        counter.bench.settle()
        counter.bench.settle()
        assert [note[0] for note in notes(counter)] == ["r0", "r1", "r2"]


def test_a_callback_on_manifests_of_the_past_stays_and_is_not_tried_again_at_once(counter: Counter) -> None:
    """Whoever delivers goes on while there is more: it would spin."""
    outdated = True

    def late(ctx: MutationContext, completion: Completion) -> None:
        if outdated:
            raise errors.Outdated("the manifests changed")
        told(ctx, completion)

    counter.shop.mutation(late, "told")
    finish(counter.bench, "r")
    tried: c.Worked = counter.bench.do(c.Deliver(limit=1))
    assert (tried.count, tried.more, notes(counter)) == (0, False, [])
    outdated = False
    counter.bench.settle()
    assert [note[0] for note in notes(counter)] == ["r"]


def test_what_calls_mutations_all_the_time_keeps_no_callback_nor_deadline_waiting(counter: Counter) -> None:
    def slow(ctx: MutationContext) -> None:
        until = perf_counter() + 0.006
        while perf_counter() < until:
            pass

    path = counter.shop.mutation(slow).path
    for run_id in ("r1", "r2"):
        finish(counter.bench, run_id)
    for run_id in ("r1", "r2"):
        counter.bench.start(f"late {run_id}", callback=CALLBACK, deadline=counter.bench.clock.now + 10)
    counter.shop.mutation(told)
    counter.bench.clock.tick(11)
    delivered, swept = counter.bench.all(c.Invoke(path), c.Deliver(), c.Sweep())[1:]
    assert min(delivered.count, swept.count) >= 1
    counter.bench.settle()
    assert sorted(note[0] for note in notes(counter)) == ["late r1", "late r2", "r1", "r2"]


@pytest.mark.parametrize("text", ["{}", "[]", '{"function":""}', '{"function":"f","x":1}', "x", '{"function":1}'])
def test_a_callback_that_cannot_be_called_is_refused_at_the_start(counter: Counter, text: str) -> None:
    counter.bench.refused(c.StartRun("r", "wf", callback=text), errors.Invalid)

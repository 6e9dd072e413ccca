"""Mutations that do bad things: the batch around them goes on, and their rows are there once or not at all."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stepwell.functions.contexts import MutationContext
from stepwell.functions.define import Mutation
from stepwell.functions.errors import AppError
from stepwell.model import commands as c
from stepwell.model import errors
from tests.functions import shop as bad
from tests.functions.shop import DONE, IO, LIMIT_MS, Counter, Shop
from tests.support import stamp

Body = Callable[[MutationContext], Any]


def fails(ctx: MutationContext) -> None:
    raise AppError({"why": "no stock"})


def exits(ctx: MutationContext) -> None:
    raise SystemExit


def returns_object(ctx: MutationContext) -> Any:
    return object()


def returns_much(ctx: MutationContext) -> str:
    return "x" * 5_000


def starts_then_fails(ctx: MutationContext) -> None:
    run_id = ctx.start(SHOP_ORDER[0], 1)
    ctx.signal(run_id, DONE, "x")
    ctx.signal("neighbour", DONE, "never")
    ctx.cancel("bystander")
    raise ValueError


SHOP_ORDER: list[Any] = []
BAD: list[tuple[Body, str]] = [
    *((one, "NotAllowed") for one in IO),
    (bad.spins, "Timeout"),
    (bad.spins_and_catches, "Timeout"),
    (bad.spins_in_sql, "Timeout"),
    (fails, "AppError"),
    (exits, "SystemExit"),
    (returns_object, "NotJson"),
    (returns_much, "TooLarge"),
    (starts_then_fails, "ValueError"),
]


@pytest.mark.parametrize(("body", "error"), BAD, ids=[one.__name__ for one, _ in BAD])
def test_the_batch_around_a_bad_mutation_goes_on(counter: Counter, body: Body, error: str) -> None:
    bench, path = counter.bench, counter.shop.bad(body)
    SHOP_ORDER[:] = [counter.shop.order]
    first, second, idle = (bench.turn(name).lease for name in ("first", "second", "idle"))
    bench.start("neighbour")
    bench.start("bystander")
    batch = (
        c.Mutate(first, 1, 9, "good", "shop:pay", '{"order_id":"before"}'),
        c.Signal("neighbour", "ping"),
        c.Mutate(second, 1, 9, "bad", path, "{}"),
        c.Sync("w", (c.Beat(idle),), 10_000),
        c.Invoke("shop:pay", '{"order_id":"after"}'),
        c.StartRun("later", "wf"),
    )
    began = time.monotonic()
    replies = bench.all(*batch)
    assert time.monotonic() - began < LIMIT_MS / 1_000 * 30, "nobody waits for long"
    assert [type(reply) for reply in replies] == [c.Recorded, c.Signaled, c.Recorded, c.Beats, c.Invoked, c.Started]
    assert replies[3].tasks[0].error is None
    entry = bench.journal("second")[-1]
    assert (entry.kind, msgspec.json.decode(entry.data)["error"]["type"]) == ("step.failed", error)
    assert counter.rows() == [("after", 1), ("before", 1)]
    assert bench.kinds("neighbour") == ["run.created", "signal.received"]
    assert bench.run("bystander").cancel_at is None
    with bench.reader() as reader:
        assert len(reader.scan_runs()) == 6, "what it started is gone"


def test_a_repeated_write_is_answered_and_not_run_again(counter: Counter) -> None:
    lease = counter.bench.turn().lease
    write = c.Mutate(lease, 1, 2, "k", "shop:pay", '{"order_id":"once"}')
    first = counter.bench.do(write)
    assert counter.bench.do(write).first == first.first
    assert counter.rows() == [("once", 1)]


def test_a_command_that_is_refused_after_its_mutation_takes_the_rows_back(counter: Counter) -> None:
    bench = counter.bench
    lease = bench.turn().lease
    original = bench.lane._settings
    assert original.journal_entries == 100_000
    replies = bench.all(
        c.Mutate(lease, 3, 2, "k", "shop:pay", '{"order_id":"x"}'),
        c.Mutate(lease, 1, 2, "k", "shop:gone", "{}"),
        c.Invoke("shop:pay", '{"order_id":"y"}', request="\n"),
        c.Invoke("shop:pay", '{"order_id":1}'),
        c.Invoke("shop:pay", "[]"),
        c.Invoke("shop:pay", "{"),
        c.Invoke("shop:amounts", "{}"),
    )
    assert [type(reply) for reply in replies] == [
        errors.OutOfStep,
        errors.UnknownFunction,
        errors.Invalid,
        errors.MutationFailed,
        errors.MutationFailed,
        errors.Invalid,
        errors.UnknownFunction,
    ]
    assert counter.rows() == []


def test_a_surprise_after_the_call_takes_the_rows_back(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = counter.bench.turn().lease

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("stepwell.kernel.writes.append", broken)
        replies = counter.bench.all(
            c.Mutate(lease, 1, 2, "k", "shop:pay", '{"order_id":"x"}'), c.Invoke("shop:pay", '{"order_id":"y"}')
        )
    assert [type(reply) for reply in replies] == [errors.Internal, c.Invoked]
    assert counter.rows() == [("y", 1)]


def test_what_a_mutation_starts_signals_and_cancels_commits_with_it(counter: Counter, shop: Shop) -> None:
    bench = counter.bench
    bench.turn("other")
    bench.start("asked")

    def body(ctx: MutationContext) -> list[str]:
        run_id = ctx.options(id="mine", tags={"a": "b"}, priority=3).start(shop.order, 5)
        again = ctx.options(id="mine").start(shop.order, 5)
        job = ctx.options(delay=5).enqueue(shop.ship, 6)
        ctx.signal("mine", DONE, "yes")
        ctx.signal("other", DONE, "yes")
        ctx.cancel("asked")
        return [run_id, again, job]

    mine, again, job = counter.invoke(shop.bad(body), by="me")
    assert (mine, again) == ("mine", "mine")
    run = bench.run("mine")
    assert (run.name, run.input, run.priority, run.tags) == ("shop:order", '{"number":5}', 3, '{"a":"b"}')
    assert bench.kinds("mine") == ["run.created", "signal.received"]
    assert bench.kinds("other")[-1] == "signal.received"
    assert bench.run("asked").status == "canceled"
    bench.clock.tick(5_001)
    bench.settle()
    (leased,) = bench.claim(requires=("function:shop:ship",))
    assert (leased.run.id, leased.kind, leased.input) == (job, "step", '{"number":6}')
    assert bench.do(c.Finish(leased.lease, 1, c.Completed('"6"'))).status == "completed"


def test_what_is_refused_inside_can_be_caught(counter: Counter, shop: Shop) -> None:
    def body(ctx: MutationContext) -> str:
        try:
            ctx.cancel("nobody")
        except errors.Unknown as error:
            return error.code
        return ""

    assert counter.invoke(shop.bad(body)) == "unknown"
    assert counter.rows() == [("bad", 1)]


def test_a_mutation_calls_others_in_its_transaction(counter: Counter, shop: Shop) -> None:
    def doomed(ctx: MutationContext, order_id: str) -> None:
        ctx.call(shop.pay, order_id)
        ctx.start(shop.order, 1)
        raise ValueError(order_id)

    doomed_path, not_one = shop.mutation(doomed), cast("Mutation[[], None]", shop.ship)

    def body(ctx: MutationContext) -> list[int]:
        ctx.call(shop.pay, "kept", amount=2)
        with pytest.raises(ValueError, match="gone"):
            ctx.call(doomed_path, "gone")
        with pytest.raises(errors.Invalid):
            ctx.call(not_one)  # an action is no transaction
        return ctx.call(shop.amounts)

    assert counter.invoke(shop.bad(body)) == [1, 2]
    assert counter.rows() == [("bad", 1), ("kept", 2)]
    with counter.bench.reader() as reader:
        assert reader.scan_runs() == []


def test_a_request_is_answered_once(counter: Counter) -> None:
    call = c.Invoke("shop:pay", '{"order_id":"a"}', request="q")
    assert [reply.result for reply in counter.bench.all(call, call)] == ["1", "1"]
    counter.bench.refused(c.Invoke("shop:pay", '{"order_id":"b"}', request="q"), errors.Conflict)
    assert counter.rows() == [("a", 1)]
    counter.bench.clock.tick(25 * 3_600_000)
    counter.bench.do(c.Prune())
    counter.bench.refused(call, errors.MutationFailed)  # forgotten by now, and the key is taken


def test_users_code_of_a_batch_is_bounded_and_nobody_is_forgotten(counter: Counter, shop: Shop) -> None:
    def body(ctx: MutationContext) -> str:
        until = time.perf_counter() + 0.01
        while time.perf_counter() < until:
            pass
        ctx.db.execute("delete from receipt where order_id = 'bad'")
        return "done"

    path = shop.bad(body)
    before = counter.bench.lane.commits
    replies = counter.bench.all(*[c.Invoke(path)] * 5, c.StartRun("r", "wf"))
    assert [type(reply) for reply in replies] == [*[c.Invoked] * 5, c.Started]
    assert counter.bench.lane.commits - before == 5, "one long one for each commit"


def test_a_log_line_is_no_io(counter: Counter, shop: Shop, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "late.log", delay=True)
    logger = logging.getLogger("stepwell.functions")
    logger.addHandler(handler)
    try:
        counter.invoke(shop.bad(lambda ctx: ctx.log.warning("written in a transaction")))
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert "written in a transaction" in (tmp_path / "late.log").read_text()


def test_a_mutation_of_nothing_but_the_apps_tables_is_a_change(counter: Counter) -> None:
    before = counter.bench.lane.commits
    counter.invoke("shop:pay", '{"order_id":"a"}')
    assert counter.bench.lane.commits == before + 1
    stamp(counter.store)
    with counter.bench.reader() as reader:
        assert '"app"' in reader.changes("", after=0)[-1].touched

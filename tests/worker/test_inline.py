"""Inline steps: where they run, what they may return, timeouts, retries, and what cannot be recorded."""

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stepwell.functions.contexts import QueryContext
from stepwell.functions.define import Query, Retry
from stepwell.functions.errors import NonRetryable, StepError, StepTimeout
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Run
from stepwell.worker.inline import Inline
from stepwell.worker.threads import Threads
from stepwell.workflow.context import Context
from stepwell.workflow.work import Failed, Work

from .bodies import Crowd
from .hall import QUICK, NoCalls, hall
from .loops import on_a_loop

AT_ONCE = Retry(3, initial=0.001)
TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@dataclass
class Note:
    text: str


@on_a_loop
async def test_both_kinds_of_functions_and_the_ways_to_write_them(tmp_path: Path) -> None:
    async def later(x: int) -> Note:
        await asyncio.sleep(0)
        return Note(f"{x} {threading.current_thread() is threading.main_thread()}")

    def now(x: int) -> Note:
        return Note(f"{x} {threading.current_thread() is threading.main_thread()}")

    async def flow(ctx: Context) -> list[str]:
        notes = [
            await ctx.step(later, 1),
            await ctx.step(now, 2),
            await ctx.options(returns=Note).step("lambda", lambda: later(3)),
            await ctx.step("kw", now, x=4),
        ]
        return [note.text for note in notes]

    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await it.start(it.workflow(flow))) == ["1 True", "2 False", "3 True", "4 False"]


@on_a_loop
async def test_each_step_has_a_context_of_its_own(tmp_path: Path) -> None:
    async def sets() -> str:
        before = TENANT.get()
        TENANT.set("leaked")
        return before

    def sets_too() -> str:
        before = TENANT.get()
        TENANT.set("leaked")
        return before

    async def flow(ctx: Context) -> list[str]:
        return [await ctx.step(sets), await ctx.step(sets_too), await ctx.step(sets), await ctx.step(sets_too)]

    TENANT.set("the worker's")
    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await it.start(it.workflow(flow))) == ["the worker's"] * 4


@on_a_loop
@pytest.mark.parametrize("blocking", [False, True])
async def test_a_timeout_is_of_one_attempt_and_can_be_caught(tmp_path: Path, blocking: bool) -> None:
    let_go = threading.Event()
    tried: list[int] = []

    async def slow() -> None:
        tried.append(1)
        await asyncio.sleep(60)

    def hangs() -> None:
        tried.append(1)
        let_go.wait(60)

    async def flow(ctx: Context) -> str:
        try:
            await ctx.options(timeout=0.05, retry=Retry(2, initial=0.001)).step(hangs if blocking else slow)
        except StepTimeout as error:
            return f"{error.type} {error.attempts}"
        return ""

    async with hall(tmp_path) as it:
        it.work()
        assert await it.result(await it.start(it.workflow(flow))) == "StepTimeout 2"
        assert tried == [1, 1]
        let_go.set()


@on_a_loop
@pytest.mark.parametrize(
    ("error", "attempts"),
    [(ValueError("x"), 3), (NonRetryable("x"), 1), (SystemExit(2), 1), (asyncio.CancelledError(), 3)],
)
@pytest.mark.parametrize("blocking", [False, True])
async def test_errors_are_step_errors(tmp_path: Path, error: BaseException, attempts: int, blocking: bool) -> None:
    async def fails() -> None:
        raise type(error)(*error.args)

    def fails_too() -> None:
        raise type(error)(*error.args)

    async def flow(ctx: Context) -> list[Any]:
        try:
            await ctx.options(retry=AT_ONCE).step("s", fails_too if blocking else fails)
        except StepError as failed:
            return [failed.type, failed.attempts, "attempt.py" in failed.traceback]
        return []

    async with hall(tmp_path) as it:
        worker = it.work()
        assert await it.result(await it.start(it.workflow(flow))) == [type(error).__name__, attempts, False]
        assert worker.trouble is None


@on_a_loop
async def test_what_cannot_be_recorded_has_failed_before_it_is_done(tmp_path: Path) -> None:
    runs: list[str] = []

    def no_json() -> Any:
        runs.append("no_json")
        return object()

    def too_large() -> str:
        runs.append("too_large")
        return "x" * (QUICK.payload_bytes + 1)

    async def flow(ctx: Context) -> list[str]:
        found = []
        for fn in (no_json, too_large):
            try:
                await ctx.options(retry=AT_ONCE).step(fn)
            except StepError as error:
                found.append(error.type)
        return found

    async with hall(tmp_path) as it:
        it.work()
        run_id = await it.start(it.workflow(flow))
        assert await it.result(run_id) == ["NotJson", "TooLarge"]
        assert runs == ["no_json", "too_large"]
        assert await it.entries(run_id, "step.completed") == []


@on_a_loop
async def test_one_that_is_done_is_not_done_again_by_another_worker(tmp_path: Path) -> None:
    runs: list[str] = []

    async def first() -> str:
        runs.append("first")
        return "a"

    async def flow(ctx: Context) -> str:
        one = await ctx.step(first)
        await ctx.wait_for_signal("go")
        return one + await ctx.step("second", first)

    async with hall(tmp_path) as it:
        worker = it.work()
        run_id = await it.start(it.workflow(flow))
        await it.parked(run_id)
        await worker.stop(drain_s=1)
        it.work()
        await it.signal(run_id, "go")
        assert await it.result(run_id) == "aa"
        assert runs == ["first", "first"]


@on_a_loop
async def test_a_step_that_the_body_gave_up_is_told_to_stop(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return "x"

    async def flow(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await ctx.step(slow)
        except TimeoutError:
            return str(await ctx.wait_for_signal("go"))

    async with hall(tmp_path) as it:
        it.work()
        run_id = await it.start(it.workflow(flow))
        async with asyncio.timeout(5):
            await stopped.wait()
        await it.signal(run_id, "go", "gave up")
        assert await it.result(run_id) == "gave up"


@on_a_loop
async def test_many_at_once_in_few_commits(tmp_path: Path) -> None:
    async def one(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def flow(ctx: Context) -> int:
        return sum(await asyncio.gather(*(ctx.step(f"s{n}", one, n) for n in range(500))))

    async with hall(tmp_path) as it:
        it.work()
        before = it.engine.lanes.commits
        assert await it.result(await it.start(it.workflow(flow))) == sum(range(500))
        assert it.engine.lanes.commits - before < 40


@on_a_loop
async def test_no_more_def_steps_at_once_than_threads(tmp_path: Path) -> None:
    crowd = Crowd()

    async def flow(ctx: Context) -> None:
        await asyncio.gather(*(ctx.step(f"s{n}", crowd) for n in range(20)))

    async with hall(tmp_path) as it:
        it.work()
        await it.result(await it.start(it.workflow(flow)))
        assert crowd.most == 4


@on_a_loop
async def test_an_event_is_matched_once_the_store_is_there(tmp_path: Path) -> None:
    asked: list[bool] = []

    async def match(run: Run, key: str, event: Any, changed: bool) -> Any:
        asked.append(changed)
        if len(asked) < 3:
            raise Unavailable("the store is away")
        return "matched"

    outcomes: asyncio.Queue[Any] = asyncio.Queue()
    inline = Inline(Threads(1), NoCalls(), match)
    work = Work("k", "match", None, ("an event",), {}, None)
    inline.run(Run(1, "main", "r"), work, True, lambda key, outcome: outcomes.put_nowait(outcome))
    assert (await outcomes.get()).sends == "matched"
    assert asked == [True] * 3


@on_a_loop
async def test_a_query_is_answered_once_the_store_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """A workflow does not fail since its database restarts; what the query itself raises is its outcome."""
    caplog.set_level("WARNING", "stepwell.worker")

    class Away:
        """The first answers are that the store is away."""

        def __init__(self, then: Exception | str) -> None:
            self.asked, self._then = 0, then

        async def call(self, fn: Any, args: Any, kwargs: Any, *, scope: str = "main", by: str = "") -> Any:
            self.asked += 1
            if self.asked < 3:
                raise Unavailable("the store is away")
            if isinstance(self._then, Exception):
                raise self._then
            return self._then

    def name(ctx: QueryContext) -> str:
        raise AssertionError("called by nobody")

    outcomes: asyncio.Queue[Any] = asyncio.Queue()
    there, fails = Away("there"), Away(StepError("its own"))
    query = Query[Any, Any]("tests", name)
    for calls in (there, fails):
        work = Work("k", "query", query, (), {}, query.signature)
        Inline(Threads(1), calls).run(
            Run(1, "main", "r"), work, False, lambda key, outcome: outcomes.put_nowait(outcome)
        )
    told = [await outcomes.get(), await outcomes.get()]
    assert {str(one.error) if isinstance(one, Failed) else one.text for one in told} == {'"there"', "its own"}
    assert (there.asked, fails.asked) == (3, 3)
    said = [one.getMessage() for one in caplog.records]
    assert said == ["k of run r is asked again until the store answers: the store is away"] * 2, "once by each"


@on_a_loop
async def test_a_store_that_stays_away_is_told_of_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each function, however many runs ask it; and again after a while."""
    caplog.set_level("WARNING", "stepwell.worker")
    asked: list[str] = []

    async def match(run: Run, key: str, event: Any, changed: bool) -> Any:
        asked.append(run.id)
        if len(asked) <= 4:
            raise Unavailable("the store is away")
        return "matched"

    async def matched(inline: Inline, *runs: str) -> list[str]:
        caplog.clear()
        asked.clear()
        outcomes: asyncio.Queue[Any] = asyncio.Queue()
        for run in runs:
            work = Work(f"of {run}", "match", None, ("an event",), {}, None)
            inline.run(Run(1, "main", run), work, True, lambda key, outcome: outcomes.put_nowait(outcome))
        for _ in runs:
            await outcomes.get()
        return [one.getMessage().partition(" is asked")[0] for one in caplog.records]

    assert await matched(Inline(Threads(1), NoCalls(), match), "r1", "r2", "r3") == ["of r1 of run r1"]
    monkeypatch.setattr("stepwell.worker.inline.SAID_EVERY_S", 0.0)
    assert await matched(Inline(Threads(1), NoCalls(), match), "r1") == ["of r1 of run r1"] * 4

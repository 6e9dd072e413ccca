"""A turn against the kernel, write by write: what is given up while it begins, what is refused, what is kept."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from stepwell.functions.define import Retry, Signal, Workflow
from stepwell.functions.errors import AppError, StepError
from stepwell.model import commands as c
from stepwell.model.entries import PatchMarked
from stepwell.model.errors import Invalid, StepwellError
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.workflow.context import Context, Facts
from stepwell.workflow.turn import Done, Failed, Turn
from tests.support import Bench

GO = Signal("go", int)
LOG = logging.LoggerAdapter(logging.getLogger("tests"), {})
SMALL = Settings(payload_bytes=1_024, blob_over_bytes=1_024)


async def endless(ctx: Context) -> None:
    await ctx.wait_for_signal("never")


CHILD = Workflow[Any, Any]("t", endless, {})


class One:
    """The run `r` of a workflow, and its life in memory."""

    def __init__(self, fn: Any, settings: Settings | None = None) -> None:
        self.bench = Bench(MemoryStore(), settings=settings)
        self.workflow = Workflow[Any, Any]("t", fn, {})
        path = self.workflow.path
        claim = c.ClaimFor("w", 10_000, "secret")
        started = self.bench.do(
            c.StartRun("r", path, "{}", version="1", requires=f"workflow:{path}", claim_for=claim)
        ).claim
        self.turn = self._begin(started)

    def _begin(self, leased: c.Leased) -> Turn:
        facts = Facts("r", self.workflow.path, generation=leased.run.generation)
        turn = Turn(leased, self.workflow, facts=facts, logger=lambda name, instance: LOG)
        turn.begin()
        return turn

    def again(self) -> None:
        """Another life, out of the journal."""
        self.turn.close()
        (leased,) = self.bench.do(
            c.Claim(
                "w", f"secret {self.bench.clock.now}", requires=(f"workflow:{self.workflow.path}",), lease_ms=10_000
            )
        ).tasks
        self.turn = self._begin(leased)

    def next(self) -> Any:
        return self.turn.next(self.bench.clock.now)

    def send(self, command: Any) -> None:
        """The kernel's answer to a command of the turn."""
        reply = self.bench.all(command)[0]
        if isinstance(reply, StepwellError):
            self.turn.refused(reply)
        else:
            self.turn.answered(reply)

    def go(self, **outcomes: Any) -> None:
        """Until the turn only waits; a step ends as the outcome of its name."""
        for _ in range(1_000):
            command = self.next()
            if command is not None:
                self.send(command)
                continue
            work = self.turn.take_work()
            if not work:
                return
            for one in work:
                name = one.key.rpartition("/")[2].partition("#")[0]
                self.turn.worked(one.key, outcomes.get(name, Done("1")), self.bench.clock.now)
        raise AssertionError("it never gets idle")

    def entries(self, kind: str) -> list[Any]:
        return [entry for entry in self.bench.journal("r") if entry.kind == kind]

    def hear(self) -> None:
        """What others wrote."""
        self.turn.heard(self.bench.journal("r"))

    def run(self) -> Any:
        with self.bench.reader() as reader:
            return reader.run("main", "r")

    def status(self) -> str:
        return str(self.run().status)

    def result(self) -> str:
        assert self.status() == "completed", self.run().error
        return str(self.run().result)

    def signal(self, payload: str = "1") -> None:
        self.bench.do(c.Signal("r", "go", payload))

    def close(self) -> None:
        self.turn.close()
        self.bench.close()


Live = Callable[..., One]


@pytest.fixture
def live() -> Iterator[Live]:
    """Makes runs, and takes them out of memory."""
    made: list[One] = []

    def make(fn: Any, settings: Settings | None = None) -> One:
        made.append(One(fn, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def one() -> int:
    return 1


# ── given up while it begins ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["call", "start"])
def test_a_child_that_is_given_up_while_its_start_is_under_way_is_canceled(live: Live, how: str) -> None:
    async def body(ctx: Context) -> None:
        starts = asyncio.ensure_future(ctx.call(CHILD) if how == "call" else ctx.start(CHILD))
        await ctx.wait_for_signal(GO)
        starts.cancel()
        await ctx.wait_for_signal("never")

    it = live(body)
    start = it.next()
    it.signal()
    it.send(start)
    it.go()
    (started,), (sent,) = it.entries("child.started"), it.entries("cancel.sent")
    assert sent.key == f"{started.key}~cancel"
    it.bench.do(c.Deliver())
    with it.bench.reader() as reader:
        child = reader.run("main", start.entries[0].body.child)
    assert child is not None
    assert child.cancel_at is not None


def test_a_detached_child_that_is_given_up_while_its_start_is_under_way_lives_on(live: Live) -> None:
    async def body(ctx: Context) -> None:
        starts = asyncio.ensure_future(ctx.options(detached=True).start(CHILD))
        await ctx.wait_for_signal(GO)
        starts.cancel()
        await ctx.wait_for_signal("never")

    it = live(body)
    start = it.next()
    it.signal()
    it.send(start)
    it.go()
    assert it.entries("cancel.sent") == []
    park = it.turn.park(it.bench.clock.now)
    assert park.waits == ("signal:never",)


def test_a_detached_child_cannot_be_called_since_nobody_would_hear_of_its_end(live: Live) -> None:
    async def body(ctx: Context) -> None:
        await ctx.options(detached=True).call(CHILD)

    it = live(body)
    it.go()
    assert it.status() == "failed"


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_failure_that_is_too_large_is_told_without_its_data(live: Live, attempts: int) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.options(retry=Retry(max_attempts=attempts, initial=0)).step("go", one)
        except StepError as error:
            return f"{error.type} after {error.attempts}"
        return "nothing"

    it = live(body, SMALL)
    for _ in range(attempts):
        it.go(go=Failed(AppError({"much": "x" * 10_000})))
        it.bench.clock.now += 1_000
    assert it.result() == f'"AppError after {attempts}"'


def test_after_a_refused_write_the_others_go_together_again(live: Live) -> None:
    async def body(ctx: Context) -> int:
        steps = [ctx.step(f"s{n}", one) for n in range(3)]
        await asyncio.gather(ctx.step("big", one), *steps, return_exceptions=True)
        return sum(await asyncio.gather(*(ctx.step(f"t{n}", one) for n in range(3))))

    it = live(body, SMALL)
    small = {f"{kind}{n}": Done("1") for kind in "st" for n in range(3)}
    it.go(big=Done(f'"{"x" * 2_000}"'), **small)
    assert it.result() == "3"
    later = [entry.n for entry in it.entries("step.completed") if "/" in entry.key and "/t" in entry.key]
    assert len(later) == 3
    assert len(set(later)) == 1


def test_a_body_that_ends_with_marks_where_the_journal_is_full_fails(live: Live) -> None:
    async def body(ctx: Context) -> None:
        for _ in range(98):
            await ctx.step("s", one)
        ctx.patched("one")
        ctx.patched("two")

    it = live(body, Settings(journal_entries=100))
    it.go(s=Done("1"))
    assert it.status() == "failed"


# ── long lives ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deadlines_of_steps_that_have_ended_are_not_kept(live: Live) -> None:
    async def body(ctx: Context) -> None:
        for _ in range(100):
            await ctx.options(deadline=3_600).step("s", one)
            await ctx.wait_for_signal(GO)

    it = live(body)
    for _ in range(50):
        it.go(s=Done("1"))
        assert it.turn.due is None
        it.signal()
        it.hear()


def test_signals_that_were_not_awaited_to_the_end_leave_nothing(live: Live) -> None:
    async def body(ctx: Context) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await ctx.wait_for_signal("other", timeout=1)

    it = live(body)
    for _ in range(20):
        it.go()
        it.bench.clock.now += 1_000
    assert len(it.turn.instance.inboxes["other"].waiters) == 1


@pytest.mark.parametrize("name", ["x", "é" * 230, "\U0001f600" * 230])
def test_a_run_that_waits_for_much_under_long_names_parks_and_tells_a_part_timers_last(live: Live, name: str) -> None:
    async def body(ctx: Context) -> None:
        for n in range(200):
            asyncio.create_task(ctx.sleep(60 + n), name=f"{name}{n}")  # noqa: RUF006 - the loop keeps them
        asyncio.create_task(ctx.call(CHILD), name=name)  # noqa: RUF006
        await ctx.wait_for_signal("x" * 128)

    it = live(body, SMALL)
    it.go()
    park = it.turn.park(it.bench.clock.now)
    assert park.waits[0] == "signal:" + "x" * 128
    assert len("".join(park.waits).encode()) <= SMALL.payload_bytes
    assert [wait.partition(":")[0] for wait in park.waits[1:3]] == ["child", "timer"][: len(park.waits) - 1]
    it.send(park)
    assert (it.turn.state, it.status()) == ("parked", "waiting")


def test_one_wait_is_told_however_long_its_name_is(live: Live) -> None:
    async def body(ctx: Context) -> None:
        await asyncio.create_task(ctx.call(CHILD), name="\U0001f600" * 230)

    it = live(body, SMALL)
    it.go()
    it.send(it.turn.park(it.bench.clock.now))
    assert (it.turn.state, it.status()) == ("parked", "waiting")


# ── a restart that keeps a part ──────────────────────────────────────────────────────────────────────────────────────


def test_what_a_restart_keeps_is_replayed_with_the_same_chance_and_the_same_children(live: Live) -> None:
    async def body(ctx: Context) -> str:
        child = await ctx.start(CHILD)
        await ctx.step(f"chance {ctx.random.random()} {ctx.uuid()}", one)
        await ctx.wait_for_signal(GO)
        return child.id

    it = live(body)
    it.go()
    kept = it.bench.journal("r")[-1].seq
    (started,) = it.entries("child.started")
    it.bench.do(c.Terminate("r", "tests", "to begin again"))
    it.bench.do(c.Restart("r", keep_seq=kept, by="tests"))
    it.again()
    assert it.turn.instance.mismatch is None
    it.signal()
    it.hear()
    it.go()
    assert it.result().strip('"') in started.data


@pytest.mark.parametrize("microseconds", [1, 499, 500, 999, 1_000, 1_499])
def test_a_moment_is_not_before_itself(live: Live, microseconds: int) -> None:
    async def body(ctx: Context) -> bool:
        when = ctx.now() + timedelta(microseconds=microseconds)
        await ctx.sleep_until(when)
        return ctx.now() >= when

    it = live(body)
    it.go()
    it.bench.clock.now += 2
    it.go()
    assert it.result() == "true"


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_may_have_a_name_that_cannot_be_stored(live: Live) -> None:
    async def body(ctx: Context) -> str:
        await ctx.step("\ud800/", one)
        ctx.patched("#" * 1_000)
        await ctx.step("ä", one)
        return "done"

    it = live(body)
    it.go()
    assert it.result() == '"done"'
    assert [entry.key for entry in it.entries("step.completed")] == ["\\ud800%2F#0", "ä#0"]


@pytest.mark.parametrize("name", ["\ud800", "x" * 100_000])
def test_a_signal_that_nobody_could_send_is_not_waited_for(live: Live, name: str) -> None:
    async def body(ctx: Context) -> None:
        await ctx.wait_for_signal(name)

    it = live(body)
    it.go()
    assert it.status() == "failed"


def test_a_change_whose_name_cannot_be_stored_is_refused_in_the_body_and_by_the_kernel(live: Live) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.patched("\ud800")
        except Invalid as error:
            return error.message
        return "nothing"

    it = live(body)
    draft = c.Draft(PatchMarked("\ud800"), "k")
    it.bench.refused(c.Record(it.turn.leased.lease, 1, it.turn.seen, (draft,)), Invalid)
    it.go()
    assert it.result() == '"change is not valid Unicode"'

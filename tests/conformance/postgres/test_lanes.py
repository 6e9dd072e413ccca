"""Lanes on PostgreSQL that meet at the same runs: who waits for whom, and who does not."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from msgspec.structs import replace

from stepwell.engine.clock import steady_s
from stepwell.engine.engine import Engine
from stepwell.engine.roles import Promoter
from stepwell.kernel.calls import Call, Called
from stepwell.kernel.decide import decide_inside
from stepwell.kernel.fold import body_of
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.entries import SignalReceived, SignalSent
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Pool
from stepwell.model.settings import Settings
from stepwell.store.port import Store
from stepwell.worker.held import Held
from tests.engine.faulty import wait_until
from tests.support import assert_lawful
from tests.support.bench import LEASE_MS, Bench

ONE = Settings(lanes=1, poll_ms=60_000)


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()


def beat(bench: Bench, *tasks: c.Leased, lease_ms: int = 60_000) -> list[c.Synced]:
    answer: c.Beats = bench.do(c.Sync("w", tuple(c.Beat(task.lease) for task in tasks), lease_ms))
    return answer.tasks


def test_a_heartbeat_waits_for_nobody_and_extends_what_is_free(bench: Bench, store: Store) -> None:
    """A run may be under the hands of a lane for as long as a mutation takes."""
    for no in range(3):
        bench.start(f"r{no}")
    tasks = bench.claim(lease_ms=60_000)
    other = store.session("other")
    other.begin()
    other.runs([tasks[1].run.no])
    bench.clock.tick(30_000)
    before = [task.lease_until for task in tasks]
    free, busy, also_free = beat(bench, *tasks)
    assert (free.lease_until, busy.lease_until, also_free.lease_until) == (
        before[0] + 30_000,
        before[1],
        before[2] + 30_000,
    )
    assert not any(one.error for one in (free, busy, also_free))
    other.rollback()
    assert beat(bench, *tasks)[1].lease_until == before[1] + 30_000
    other.close()


def test_details_wait_for_a_run_that_another_lane_has_and_no_lease_waits_with_them(bench: Bench, store: Store) -> None:
    """Else a sweep, here or in another process, could end the leases of a worker that lives."""
    for no in range(3):
        bench.start(f"r{no}")
    tasks = bench.claim(lease_ms=LEASE_MS)
    other = store.session("other")
    other.begin()
    other.runs([tasks[1].run.no])
    bench.clock.tick(30_000)
    sync = c.Sync("w", tuple(c.Beat(task.lease, details='"far"') for task in tasks), LEASE_MS)
    beats, swept = bench.lane._run([sync, c.Sweep()])
    until = tasks[0].lease_until
    assert [(one.lease_until, one.untold) for one in beats.tasks] == [
        (until + 30_000, False),
        (until, True),
        (until + 30_000, False),
    ]
    assert swept.count == 0
    assert [bench.task(task.run.id).details for task in tasks] == ['"far"', None, '"far"']
    other.rollback()
    other.close()
    assert not any(one.untold for one in bench.do(sync).tasks)
    assert bench.task(tasks[1].run.id).details == '"far"'


def test_the_last_details_of_an_attempt_are_told_until_they_are_kept(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=ONE, roles=False) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            asked_at = steady_s()
            (task,) = (await engine.submit(c.Claim("w", engine.secret()))).tasks
            held = Held(engine, task, asked_at)
            held.details = '"far"'
            other = store.session("other")
            other.begin()
            other.runs([number])
            telling = asyncio.create_task(held.tell_details())
            await asyncio.to_thread(wait_until, lambda: engine.lanes.timings.commands > 2)
            assert not telling.done()
            other.rollback()
            other.close()
            async with asyncio.timeout(30):
                await telling
            kept = await engine.read(lambda reader: reader.tasks_of(number))
            assert [one.details for one in kept] == ['"far"']
            assert held.beat().details is None

    asyncio.run(main())


def test_a_heartbeat_that_writes_nothing_holds_up_nobody(store: Store) -> None:
    """It tells the news of a run that another lane has: its last commit."""
    other, free = store.session("other"), list[int]()

    def another_lane(point: str) -> None:
        if point == "decided" and beating:
            other.begin()
            free.extend(run.no for run in other.take([task.run.no])[0])
            other.rollback()

    beating = False
    bench = Bench(store, fault=another_lane)
    task = bench.turn("r")
    bench.do(c.Signal("r", "s"))
    beating = True
    (told,) = beat(bench, task, lease_ms=LEASE_MS)
    assert ([entry.kind for entry in told.missed], free) == (["signal.received"], [task.run.no])
    bench.clock.tick(30_000)
    beat(bench, task, lease_ms=LEASE_MS)
    assert free == [task.run.no], "one that is written is nobody else's"
    for one in (other, bench):
        one.close()


def test_what_names_a_run_that_another_lane_has_waits_alone_and_in_its_order(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=ONE, roles=False) as engine:
            runs = {no: (await engine.submit(c.StartRun(f"r{no}", "wf"))).run_no for no in range(3)}
            (task, *_) = (await engine.submit(c.Claim("w", "secret", limit=3))).tasks
            other = store.session("other")
            other.begin()
            other.runs([runs[0]])
            named: list[c.Command] = [c.Signal("r0", "s", str(turn)) for turn in range(3)]
            named += [c.StartRun("r0", "wf"), c.Release(task.lease, 1)]
            late = [asyncio.ensure_future(engine.submit(command)) for command in named]
            for turn in range(20):
                assert (await engine.submit(c.Signal(f"r{1 + turn % 2}", "s"))).seq == 3 + turn // 2
            late.append(asyncio.ensure_future(engine.submit(c.Signal("r0", "s", "3"))))
            await engine.submit(c.Signal("r1", "s"))
            assert not any(one.done() for one in late)
            other.rollback()
            signals = [(await one).seq for one in (*late[:3], late[-1])]
            assert signals == sorted(signals)
            assert [(await late[3]).created, (await late[4]).state] == [False, "ready"]
            entries = await engine.read(lambda reader: reader.entries(runs[0]))
            sent = [entry for entry in entries if entry.kind == "signal.received"]
            assert [entry.seq for entry in sent] == signals
            other.close()

    asyncio.run(main())


def test_a_message_for_a_run_that_another_lane_has_is_delivered_when_it_is_free(store: Store) -> None:
    """Nothing tells of that, and the poll is a minute away."""

    async def main() -> None:
        async with Engine(store, settings=ONE) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            await engine.submit(c.StartRun("from", "wf"))
            tasks = (await engine.submit(c.Claim("w", engine.secret(), limit=2))).tasks
            sender = next(task for task in tasks if task.run.id == "from")
            other = store.session("other")
            other.begin()
            other.runs([number])
            sends = c.Draft(SignalSent("r", "s"), "k")
            await engine.submit(c.Record(sender.lease, 1, sender.seen, (sends,)))
            await asyncio.sleep(0.1)  # the delivery has looked, and found nothing
            other.rollback()
            other.close()
            async with asyncio.timeout(30):
                await engine.wait_run(number, lambda run: run.head_seq == 3)

    asyncio.run(main())


def test_messages_for_runs_that_other_lanes_have_hold_up_none_for_others(bench: Bench, store: Store) -> None:
    """As many as one delivery takes wait for each of them, and come first at every look."""
    names = ["busy0", "busy1", "busy2", "free"]
    sender = bench.turn("from").lease
    for name in names:
        bench.start(name)
    sends = [c.Draft(SignalSent(name, "s"), f"{name}.{turn}") for name in names for turn in range(4)]
    bench.do(c.Record(sender, 1, 9, tuple(sends)))
    other = store.session("other")
    other.begin()
    other.runs([bench.run(name).no for name in names[:3]])
    delivered: c.Worked = bench.do(c.Deliver(limit=4))
    assert (delivered.count, delivered.more, delivered.soon) == (4, True, True)
    assert bench.kinds("free").count("signal.received") == 4
    nothing: c.Worked = bench.do(c.Deliver(limit=4))
    assert (nothing.count, nothing.more, nothing.soon) == (0, False, True)
    other.rollback()
    bench.settle()
    assert [bench.kinds(name).count("signal.received") for name in names] == [4, 4, 4, 4]
    other.close()


def test_a_slot_goes_to_a_run_that_another_lane_has_as_soon_as_it_is_free(store: Store) -> None:
    """Nothing tells of that, and the poll is a minute away."""

    async def main() -> None:
        async with Engine(store, settings=ONE) as engine:
            await engine.submit(c.SetPool(Pool("main", "p", key_limit=1)))
            for name in ("first", "next"):
                await engine.submit(c.StartRun(name, "wf", pool="p", pool_key="k"))
            (first,) = (await engine.submit(c.Claim("w", engine.secret(), limit=2))).tasks
            number = next(run.no for run in await engine.read(lambda reader: reader.scan_runs()) if run.id == "next")
            other = store.session("other")
            other.begin()
            other.runs([number])
            done = engine.lanes.timings.commands
            await engine.submit(c.Finish(first.lease, 1, c.Completed()))
            await asyncio.to_thread(wait_until, lambda: engine.lanes.timings.commands > done + 2)  # it has looked
            other.rollback()
            other.close()
            hint, tasks = engine.ready_hint(), list[c.Leased]()
            async with asyncio.timeout(30):
                while not (tasks := (await engine.submit(c.Claim("w", engine.secret()))).tasks):
                    await hint.wait()
                    hint.clear()
            assert [task.run.id for task in tasks] == ["next"]

    asyncio.run(main())


def test_who_holds_a_run_holds_up_no_key_that_comes_later(bench: Bench, store: Store) -> None:
    """Nobody said that the slots are free, so the promoter finds it, key after key; here a look is at one."""
    bench.do(c.SetPool(Pool("main", "p", key_limit=1)))
    for name in ("a1", "a2", "b1", "b2"):
        bench.do(c.StartRun(name, "wf", pool="p", pool_key=name[0]))
    leased = [task for _ in range(3) for task in bench.claim(limit=9)]
    bench.all(*(c.Finish(task.lease, 1, c.Completed()) for task in leased))

    def states() -> list[str]:
        return [bench.task(name).state for name in ("a2", "b2")]

    assert states() == ["blocked", "blocked"]

    async def submit(command: c.Command) -> c.Worked:
        assert isinstance(command, c.Promote)
        worked: c.Worked = bench.do(replace(command, limit=1))
        return worked

    async def main() -> None:
        promoter = Promoter(submit, wait_s=0.001)
        with closing(store.session("other")) as other:
            other.begin()
            other.runs([bench.run("a2").no])
            for _ in range(9):
                await promoter.work()
                await asyncio.sleep(0.001)
            assert states() == ["blocked", "ready"]
        await promoter.work()
        assert states() == ["ready", "ready"]

    asyncio.run(main())


def test_a_claim_that_comes_again_waits_for_what_it_leased(store: Store) -> None:
    async def main() -> None:
        async with Engine(store, settings=ONE, roles=False) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            (first,) = (await engine.submit(c.Claim("w", "secret"))).tasks
            other = store.session("other")
            other.begin()
            other.runs([number])
            again = engine.submit(c.Claim("w", "secret"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(again)), 0.2)
            other.rollback()
            other.close()
            assert [one.lease for one in (await again).tasks] == [first.lease]

    asyncio.run(main())


def test_a_lane_that_closes_does_not_wait_for_ever_for_a_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.engine.lane.CLOSING_WAITS", 3)

    async def main() -> None:
        other = store.session("other")
        async with Engine(store, settings=ONE, roles=False) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            other.begin()
            other.runs([number])
            waiting = engine.submit(c.Signal("r", "s"))
        with pytest.raises(Unavailable):
            await waiting
        other.close()

    asyncio.run(main())


def test_what_waits_for_a_run_counts_under_the_bound_of_the_queue(store: Store) -> None:
    async def main() -> None:
        settings = Settings(lanes=1, queue_commands=10, poll_ms=60_000)
        async with Engine(store, settings=settings, roles=False) as engine:
            number = (await engine.submit(c.StartRun("r", "wf"))).run_no
            other = store.session("other")
            other.begin()
            other.runs([number])
            waiting = list(map(asyncio.ensure_future, (engine.submit(c.Signal("r", "s")) for _ in range(10))))
            refused = 0
            while not refused:
                _, refused = await asyncio.gather(asyncio.sleep(0.01), too_many(engine))
            other.rollback()
            other.close()
            assert len(await asyncio.gather(*waiting)) == 10

    asyncio.run(main())


async def too_many(engine: Engine) -> int:
    try:
        async with asyncio.timeout(0.01):
            await engine.submit(c.Signal("r", "s"))
    except TimeoutError:
        return 0
    except Unavailable:
        return 1
    return 0


# ── runs that come in the middle of a mutation ───────────────────────────────────────────────────────────────────


class Mutating:
    """One mutation, without the guard of those of users: what it does is a test's."""

    names = ("m:f",)

    def __init__(self, body: Callable[[Unit, int], None]) -> None:
        self._body, self.calls = body, 0

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        self.calls += 1
        self._body(unit, now)
        return Called(True, "null")


def test_what_a_savepoint_brought_is_locked_anew_after_it(bench: Bench, store: Store) -> None:
    """Going back to a savepoint gives up the locks that came after it, and another lane may write those runs."""

    def body(unit: Unit, now: int) -> None:
        mark = unit.savepoint()
        assert unit.app is not None
        unit.app.execute("select 1", (), 1)
        decide_inside(unit, c.Signal("r", "taken back"), now)
        unit.rollback(mark)
        bench.do(c.Signal("r", "theirs"))
        decide_inside(unit, c.Signal("r", "ours"), now)

    mutating = Mutating(body)
    bench.start("r")
    with closing(Bench(store, mutations=mutating, name="mutating")) as lane:
        assert isinstance(lane.do(c.Invoke("m:f")), c.Invoked)
    names = [told.name for entry in bench.journal("r") if isinstance(told := body_of(entry), SignalReceived)]
    assert names == ["theirs", "ours"]
    assert mutating.calls == 1
    assert_lawful(store, bench.settings)


def test_what_was_only_looked_at_is_read_again_when_it_is_taken(bench: Bench, store: Store) -> None:
    """A late heartbeat looks at it; before a mutation of the same batch takes it, another lane has leased it anew."""
    new: list[c.Leased] = []

    def body(unit: Unit, now: int) -> None:
        bench.do(c.Signal("r", "theirs"))
        new.extend(bench.claim())
        decide_inside(unit, c.Signal("r", "ours"), now)

    mutating = Mutating(body)
    old = bench.turn("r")
    bench.do(c.Park(old.lease, 1, old.seen, ("signal:s",)))
    with closing(Bench(store, mutations=mutating, name="mutating")) as lane:
        beaten, invoked = lane.all(c.Sync("w", (c.Beat(old.lease),), LEASE_MS), c.Invoke("m:f"))
    assert beaten.tasks[0].error == "stale"
    assert isinstance(invoked, c.Invoked)
    assert mutating.calls == 1
    (task,) = new
    assert bench.task("r").state == "leased"
    assert not beat(bench, task)[0].error
    assert_lawful(store, bench.settings)

"""A command that is refused, or that raises after its first change, leaves the unit exactly as it was."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.kernel import control
from stepwell.kernel import decide as door
from stepwell.kernel.decide import decide_all
from stepwell.kernel.needs import need_of
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted, raw
from stepwell.model.rows import Pool
from stepwell.model.settings import Settings
from stepwell.store.load import load
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful, snapshot
from tests.support.bench import LEASE_MS
from tests.support.mutations import Scripted

EVENT = c.NewEvent("e", "t", "2026", "h")
#: What a batch works on: the rows, what the store will write, and what it will read.
TABLES = ("runs", "ids", "tasks", "events", "manifests", "revisions", "pools", "used", "requests", "floors", "blobs")


def state_of(unit: Unit) -> Any:
    rows = {name: sorted(map(repr, getattr(unit, name).rows.items())) for name in TABLES}
    dirty = {name: dict(getattr(unit, name).dirty) for name in TABLES}
    return rows, dirty, repr(unit.lists)


class World:
    """A store with something of everything, and every command that there is, each of which would succeed."""

    def __init__(self) -> None:
        self.bench = bench = Bench(MemoryStore(), settings=Settings(blob_over_bytes=1_024))
        bench.do(c.SetPool(Pool("main", "full", key_limit=1)))
        bench.do(c.AcceptEvent(EVENT, (c.Match("f", "s"),)))
        self.step = bench.claim()[0]
        self.turn = bench.turn()
        kept = (ActionScheduled("m:f"), ChildStarted("kid", "w"), ActionScheduled("m:g"))
        self.head = bench.record(self.turn.lease, 1, *kept).head
        self.action = next(one for one in bench.claim(limit=3) if one.kind == "action")
        bench.turn("blocker", pool="full", pool_key="k")
        bench.start("blocked", pool="full", pool_key="k")
        bench.claim()
        bench.turn("ended")
        bench.do(c.Terminate("ended"))
        bench.do(c.Terminate("kid"))
        asleep = bench.turn("asleep").lease
        bench.do(c.Park(asleep, 1, 9, ("timer:t",), bench.clock.now + 1_000, "t"))
        bench.start("plain")

    def commands(self) -> list[c.Command]:
        turn, n, seen = self.turn.lease, 2, self.head
        big = raw('"' + "x" * 2_000 + '"')
        more = (c.Draft(StepCompleted(big), "a"), c.Draft(ActionScheduled("m:h", big), "b"))
        return [
            c.AcceptEvent(c.NewEvent("e2", "t", "2026", "h", '"' + "x" * 2_000 + '"'), (c.Match("f", "s"),)),
            c.AdoptEvent(c.NewEvent("e3", "t", "2026", "h"), 5, (c.AdoptedRun("old", "f", "s", 5, 7, "completed", 6),)),
            c.ReplayEvent("e", (c.Match("f", "s"),)),
            c.SyncManifests((("f", "1", "h", "{}"),)),
            c.StartRun("new", "wf", claim_for=c.ClaimFor("w", LEASE_MS, "s")),
            c.StartRun("plain", "wf", reuse="replace"),
            c.Claim("w", "again", limit=5),
            c.Record(turn, n, seen, (*more, c.Draft(ChildStarted("kid2", "w"), "c"))),
            c.Mutate(turn, n, seen, "m", "m:f"),
            c.Invoke("m:f", request="q"),
            c.Park(turn, n, seen, ("signal:x",)),
            c.Finish(turn, n, c.Completed()),
            c.Fail(self.step.lease, 1, "{}", sends=c.Emission((c.Emitted(c.NewEvent("e4", "t", "2026", "h")),))),
            c.Finish(self.action.lease, 1, c.Completed()),
            c.Release(self.action.lease, 1),
            c.Say(self.step.lease, 0, (("stdout", "x"),)),
            c.Sync("w", (c.Beat(turn, details="{}"),)),
            c.Signal("asleep", "s", dedup="d"),
            c.Cancel("r"),
            c.Terminate("r"),
            c.HoldRun("r"),
            c.ReleaseRun("plain"),
            c.Restart("ended"),
            c.SetPool(Pool("main", "new", limit=1)),
            c.Deliver(),
            c.Sweep(),
            c.Bury("w"),
            c.Fire(),
            c.Promote(),
            c.Prune(),
        ]


def loaded(world: World, commands: list[c.Command], now: int) -> Unit:
    bench = world.bench
    session = bench.store.session("undo")
    session.begin()
    unit = Unit(bench.settings, mutations=Scripted(lambda call: (True, "1")))
    load(session, unit, need_of(commands)[0], now)
    session.abandon()
    return unit


def test_the_world_has_every_command() -> None:
    assert {type(command) for command in World().commands()} == set(door.RULES)


#: When everything is over: leases, timers, retention.
LATE_MS = 40 * 86_400_000


@pytest.mark.parametrize("late", [0, LATE_MS], ids=["now", "late"])
@pytest.mark.parametrize("place", range(29))
def test_a_rule_that_raises_at_its_end_leaves_no_trace(
    place: int, late: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    commands = world.commands()
    command, now = commands[place], world.bench.clock.now + late
    rule = door.RULES[type(command)]

    def poisoned(unit: Unit, command: Any, now: int) -> None:
        rule(unit, command, now)
        raise ZeroDivisionError("after the last change")

    unit = loaded(world, [command, c.Signal("r", "s")], now)
    before = state_of(unit)
    rules: dict[type[c.Command], Any] = door.RULES
    monkeypatch.setitem(rules, type(command), poisoned)
    with caplog.at_level(logging.CRITICAL):
        (reply,) = decide_all(unit, [command], now)
    assert isinstance(reply, errors.Internal | errors.Stale), reply
    assert state_of(unit) == before
    assert not unit.changed


@pytest.mark.parametrize("place", range(28))
def test_a_rule_that_raises_at_any_change_leaves_no_trace(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    command, now = world.commands()[place], world.bench.clock.now + LATE_MS
    for fuse in range(1, 200):
        unit = loaded(world, [command], now)
        before = state_of(unit)
        left = [fuse]
        with monkeypatch.context() as patch:
            for method in ("put", "edit", "drop"):
                _explode(patch, unit, method, left)
            (reply,) = decide_all(unit, [command], now)
        if left[0] > 0:
            break
        if type(command) is not c.Deliver:  # it takes back one message, holds the receiver, and goes on
            assert type(reply) is errors.Internal
            assert state_of(unit) == before
    assert left[0] > 0, "the command was let through in the end"


def _explode(patch: pytest.MonkeyPatch, unit: Unit, method: str, left: list[int]) -> None:
    """Makes the n-th change of any table raise after it was made."""
    table = type(unit.runs)
    real: Callable[..., Any] = getattr(table, method)

    def counting(self: Any, *args: Any) -> Any:
        done = real(self, *args)
        left[0] -= 1
        if left[0] == 0:
            raise ZeroDivisionError
        return done

    patch.setattr(table, method, counting)


@pytest.mark.parametrize("late", [0, LATE_MS], ids=["now", "late"])
def test_poison_in_a_batch_changes_nothing_for_its_neighbours(
    late: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, poisoned = World(), World()
    neighbours = (c.Signal("r", "one"), c.StartRun("b", "wf"), c.Signal("r", "two"))
    for world in (plain, poisoned):
        world.bench.clock.tick(late)
    rules: dict[type[c.Command], Any] = door.RULES
    poison: type[c.Command] = c.HoldRun
    monkeypatch.setitem(rules, poison, hold_then_raise)
    with caplog.at_level(logging.CRITICAL):
        replies = poisoned.bench.all(neighbours[0], c.HoldRun("r"), *neighbours[1:])
    assert [type(reply) for reply in replies] == [c.Signaled, errors.Internal, c.Started, c.Signaled]
    plain.bench.all(*neighbours)
    assert snapshot(poisoned.bench.store) == snapshot(plain.bench.store)
    assert_lawful(plain.bench.store, plain.bench.settings)


def hold_then_raise(unit: Unit, command: Any, now: int) -> None:
    control.hold_run(unit, command, now)
    unit.runs.edit(unit.ids.rows["main", "r"]).status = "failed"
    raise ZeroDivisionError


def test_a_refused_command_gives_its_numbers_back() -> None:
    bench = Bench(MemoryStore())
    bad = c.AdoptedRun("old", "f", "s", 5, 7, "running")
    good = c.AcceptEvent(EVENT, (c.Match("f", "s"),))
    refused, accepted = bench.all(c.AdoptEvent(c.NewEvent("x", "t", "2026", "h"), 5, (bad,)), good)
    assert isinstance(refused, errors.Invalid)
    assert bench.run(accepted.run_ids[0]).no == 1
    with bench.reader() as reader:
        event = reader.event("main", "e")
    assert event is not None
    assert event.no == 1

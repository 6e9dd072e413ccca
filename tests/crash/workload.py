"""A workload that uses every command, as batches. Each command may be sent again after a lost answer."""

from collections.abc import Generator, Iterable
from typing import Any

from msgspec import Struct

from stepwell.model import commands as c
from stepwell.model.entries import (
    ActionCanceled,
    ActionScheduled,
    Body,
    CancelSent,
    ChildStarted,
    EventSent,
    SignalSent,
    StateSet,
    StepCompleted,
    StepRetried,
    TimerFired,
    raw,
)
from stepwell.model.rows import Pool
from tests.crash.support import T0

LEASE_MS = 120_000
DAY_MS = 86_400_000
BIG = '"' + "x" * 100_000 + '"'
RETRY = '{"max_attempts":3,"initial_ms":1000}'


class Batch(Struct):
    """Commands that commit together, at a time."""

    now: int
    commands: tuple[c.Command, ...]


Script = Generator[Batch, list[Any], None]


def new_event(name: str) -> c.NewEvent:
    """An event whose body says its name."""
    return c.NewEvent(name, "order", "2026-01-01T00:00:00Z", body_hash=f"h-{name}", payload=f'{{"is":"{name}"}}')


def event(name: str, *matches: c.Match, manifests_at: int) -> c.AcceptEvent:
    return c.AcceptEvent(new_event(name), matches, manifests_at=manifests_at)


def claim(request: str, *, worker: str = "w", pools: tuple[str, ...] = ("default",), limit: int = 20) -> c.Claim:
    return c.Claim(worker=worker, request=request, pools=pools, limit=limit, lease_ms=LEASE_MS)


def leases(*claimed: c.Claimed) -> dict[str, c.Lease]:
    """Leases by the id of the run, and an action's by that and its key."""
    held = (one for reply in claimed for one in reply.tasks)
    return {one.run.id + (f"/{one.key}" if one.key else ""): one.lease for one in held}


def step(key: str, result: str = "1") -> c.Draft:
    return c.Draft(StepCompleted(raw(result)), key)


def record(lease: c.Lease, n: int, seen: int, *drafts: c.Draft) -> c.Record:
    return c.Record(lease, n, seen, drafts)


def finish(lease: c.Lease, n: int, result: str = "1", status: str | None = None) -> c.Finish:
    return c.Finish(lease, n, c.Completed(result, status))


def workload() -> Script:
    """Yields batches, is sent their replies."""
    yield from _long_ago()
    flow_steps = yield from _flow_and_pools(T0 + 2 * DAY_MS)
    yield from _workflows(T0 + 2 * DAY_MS + 60_000, flow_steps)
    yield from _sends(T0 + 2 * DAY_MS + 300_000)
    yield from _ends(T0 + 2 * DAY_MS + 600_000)


def _long_ago() -> Script:
    """What retention takes away later."""
    yield Batch(T0, (
        c.SyncManifests((("shop", "1", "h1", "{}"),)),
        event("old", c.Match("shop", "pack"), manifests_at=1),
        c.StartRun("old-wf", "wf", BIG),
        c.StartRun("never", "wf"),
    ))  # fmt: skip
    got = yield Batch(T0 + 1_000, (claim("q0", limit=3), c.Cancel("never")))
    mine = leases(got[0])
    yield Batch(T0 + 2_000, tuple(finish(lease, 1) for lease in mine.values()))


def _flow_and_pools(t: int) -> Generator[Batch, list[Any], list[c.Lease]]:
    """Events, output, retries, a key that is full, and the end of what is past its retention."""
    pools = (Pool("main", "narrow", limit=5, key_limit=1), Pool("main", "rated", limit=3, rate=2, rate_ms=60_000))
    yield Batch(t, (
        *map(c.SetPool, pools),
        c.AdoptEvent(
            c.NewEvent("adopted", "order", "2025-01-01T00:00:00Z", body_hash="h-adopted"),
            T0,
            (c.AdoptedRun("run_adopted", "shop", "pack", T0 + 1, T0 + 3, "completed", T0 + 2, result=BIG),),
        ),
        c.Prune(),
        event("e1", c.Match("shop", "pack", retry=RETRY), c.Match("shop", "send"), manifests_at=1),
        *(c.StartRun(f"key-{n}", "wf", pool="narrow", pool_key="k") for n in (1, 2)),
        *(c.StartRun(f"rated-{n}", "wf", pool="rated") for n in (1, 2, 3)),
        c.StartRun("lost", "wf", pool="fused", claim_for=c.ClaimFor("gone", 30_000, "s")),
    ))  # fmt: skip
    got = yield Batch(t + 1_000, (claim("q1"), claim("q2", pools=("narrow",)), claim("q3", pools=("rated",))))
    flows, key, rated = (leases(reply) for reply in got)
    assert [len(mine) for mine in (flows, key, rated)] == [2, 1, 2], got
    pack, send = flows.values()
    yield Batch(t + 2_000, (
        c.Sync("w", (c.Beat(pack, details='{"at":1}'), c.Beat(send)), LEASE_MS),
        c.Say(pack, 0, (("stdout", "one\n"), ("stderr", "two\n"))),
        finish(key["key-1"], 1),
        *(finish(lease, 1) for lease in rated.values()),
    ))  # fmt: skip
    yield Batch(t + 3_000, (
        c.Prune(),  # events go once their runs are gone
        c.Fail(pack, 1, '{"type":"E"}'),
        c.Say(send, 0, (("agent", "hello\n"),)),
        c.Promote(),
    ))  # fmt: skip
    got = yield Batch(t + 40_000, (
        finish(send, 1, '{"status":"blocked"}', "blocked"),
        c.Sweep(),  # takes the lease of the fused start
        c.Fire(),  # the retry
        claim("q4", pools=("narrow",)),
    ))  # fmt: skip
    assert list(leases(got[3])) == ["key-2"]
    got = yield Batch(t + 41_000, (finish(leases(got[3])["key-2"], 1), claim("q5"), claim("q6", pools=("fused",))))
    return [*leases(got[1]).values(), *leases(got[2]).values()]


def _workflows(t: int, flow_steps: list[c.Lease]) -> Script:
    """Children, actions, parks, timers, signals, messages, holds, restarts."""
    assert len(flow_steps) == 2
    yield Batch(t, (
        *(finish(lease, 1) for lease in flow_steps),
        *(c.StartRun(name, "wf", f'{{"is":"{name}"}}') for name in ("parent", "sleeper", "held", "flaky", "onward")),
    ))  # fmt: skip
    got = yield Batch(t + 1_000, (claim("q7"), c.Signal("parent", "early", BIG, dedup="d1")))
    mine = leases(got[0])
    assert sorted(mine) == ["flaky", "held", "onward", "parent", "sleeper"]
    yield Batch(t + 2_000, (
        record(mine["parent"], 1, 2,
               step("a#1", BIG),
               c.Draft(ActionScheduled("mod:act", pool="acts", retry=raw(RETRY)), "act#1"),
               c.Draft(ChildStarted("kid", "wf"), "kid#1"),
               c.Draft(ChildStarted("kid-2", "wf"), "kid#2")),
        record(mine["sleeper"], 1, 2, c.Draft(StepRetried(1, t + 9_000), "s#1")),
        record(mine["flaky"], 1, 2, step("f#1")),
        c.HoldRun("held"),  # its lease is over
        c.Signal("held", "go", "1", dedup="d3"),
        c.Signal("onward", "unread", "2", dedup="d2"),
    ))  # fmt: skip
    waits = ("action:act#1", "child:kid#1", "child:kid#2")
    got = yield Batch(t + 3_000, (
        c.Park(mine["parent"], 2, 3, waits),  # refused: it has not seen all
        c.Park(mine["sleeper"], 2, 3, ("timer:t#1",), due_at=t + 5_000, due_key="t#1"),
        c.Fail(mine["flaky"], 2, '{"type":"E"}', retry=False),
        c.Finish(mine["onward"], 1, c.Continued("onward-2", "3", 4, signals=(c.CarriedSignal("unread", "2", "d2"),))),
        claim("q8", pools=("acts",)),
    ))  # fmt: skip
    yield from _wakes(t + 4_000, mine, leases(got[4]), waits)


def _wakes(t: int, mine: dict[str, c.Lease], acts: dict[str, c.Lease], waits: tuple[str, ...]) -> Script:
    """Whatever is parked or held hears of what it waits for."""
    yield Batch(t, (
        c.Park(mine["parent"], 2, 100, waits),
        c.Fail(acts["parent/act#1"], 1, '{"type":"E"}'),
        c.ReleaseRun("held"),
        c.Restart("flaky", keep_seq=3),
        c.Signal("onward", "late", "4"),
    ))  # fmt: skip
    yield Batch(t + 3_000, (c.Fire(),))
    got = yield Batch(t + 3_000, (claim("q9", limit=100), claim("q10", pools=("acts",))))
    more = leases(*got)
    assert sorted(more) == ["flaky", "held", "kid", "kid-2", "onward-2", "parent/act#1", "sleeper"], sorted(more)
    yield Batch(t + 4_000, (
        finish(more["kid"], 1, BIG),
        c.Terminate("kid-2"),
        finish(more["parent/act#1"], 1),
        record(more["sleeper"], 1, 99, c.Draft(TimerFired(t + 3_500), "t#2"), step("s#2")),
        c.Release(more["flaky"], 1, delay_ms=2_000),
        c.Park(more["held"], 1, 100),  # waits for nothing: stalled
    ))  # fmt: skip
    yield Batch(t + 5_000, (c.Deliver(), finish(more["sleeper"], 2), finish(more["onward-2"], 1)))


def _sends(t: int) -> Script:
    """What a workflow asks for of others, functions in the transaction, and a worker that holds its run."""
    yield Batch(t, (
        *(c.StartRun(name, "wf", pool="sea") for name in ("sender", "target", "doomed", "broken")),
        c.StartRun("told", "wf", pool="sea", callback='{"function":"m:count","context":{"a":1}}'),
        c.StartRun("unheard", "wf", pool="sea", callback='{"function":"m:fail"}'),
        c.StartRun("orphan", "wf", pool="grave"),
        c.Invoke("m:count", '{"by":"nobody"}', request="i1"),
    ))  # fmt: skip
    got = yield Batch(t + 1_000, (claim("s1", pools=("sea",)), claim("s0", worker="dead", pools=("grave",))))
    mine, lost = leases(got[0]), leases(got[1])
    assert len(mine) == 6, sorted(mine)
    sends = c.Emission((c.Emitted(new_event("sent"), (c.Match("shop", "sail", pool="sea"),)),), manifests_at=1)
    yield Batch(t + 2_000, (
        record(mine["sender"], 1, 2,
               c.Draft(SignalSent("target", "ping", raw(BIG), dedup="p1"), "signal#1"),
               c.Draft(SignalSent("nowhere", "ping"), "signal#2"),  # its step fails
               c.Draft(CancelSent("doomed", "enough"), "cancel#1"),
               c.Draft(EventSent("sent"), "event#1", sends),
               c.Draft(StateSet("place", raw(BIG)), "place#1"),
               *(c.Draft(ActionScheduled("mod:act", pool="acts"), f"act#{n}") for n in (1, 2))),
        c.Park(mine["target"], 1, 2, ("signal:ping",), unread=("odd",)),
        c.Release(mine["broken"], 1, hold="mismatch", diff="the code is another"),
        c.Bury("dead"),
        finish(mine["told"], 1, BIG),
        finish(mine["unheard"], 1),
        c.Invoke("m:count", '{"by":"somebody"}', request="i2"),
    ))  # fmt: skip
    got = yield Batch(t + 3_000, (
        c.Mutate(mine["sender"], 2, 9, "m#1", "m:count", BIG),
        c.Deliver(),  # the signal and the cancel
        claim("s2", pools=("acts",)),
        c.ReleaseRun("broken"),
        finish(lost["orphan"], 1),  # refused: who is dead has no lease
        claim("s2b", pools=("grave",)),
    ))  # fmt: skip
    assert list(leases(got[5])) == ["orphan"], got[5]
    yield from _answers(t + 4_000, mine, leases(got[2]))


def _answers(t: int, mine: dict[str, c.Lease], acts: dict[str, c.Lease]) -> Script:
    """What becomes of what was sent, and of an action that nobody wants any more."""
    assert sorted(acts) == ["sender/act#1", "sender/act#2"], sorted(acts)
    got = yield Batch(t, (
        record(mine["sender"], 3, 10, c.Draft(ActionCanceled(), "act#1")),
        finish(acts["sender/act#2"], 1),
        c.Finish(mine["doomed"], 1, c.Canceled("enough")),
        claim("s3", pools=("sea",)),
    ))  # fmt: skip
    woken = leases(got[3])
    assert len(woken) == 3, sorted(woken)
    assert {"target", "broken"} < set(woken), sorted(woken)
    yield Batch(t + 1_000, (
        c.Mutate(mine["sender"], 4, 11, "m#2", "m:fail", "{}"),
        finish(acts["sender/act#1"], 1),  # refused: its lease ended with the action
        c.Invoke("m:fail", "{}", request="i3"),  # refused, and leaves nothing
        *(finish(lease, 1) for lease in woken.values()),
    ))  # fmt: skip
    yield Batch(t + 2_000, (finish(mine["sender"], 5), c.Invoke("m:count", '{"by":"nobody"}', request="i1")))


def _ends(t: int) -> Script:
    """A cancel of a parent that reaches its child, a deadline, a replaced run, and the second retention."""
    yield Batch(t, (c.Fire(),))
    got = yield Batch(t, (
        claim("q11", limit=100),
        c.ReleaseRun("held"),
        c.StartRun("late", "wf", deadline=t + 1_000, pool="nobody"),
        c.StartRun("again", "wf", pool="nobody"),
    ))  # fmt: skip
    mine = leases(got[0])
    assert sorted(mine) == ["flaky", "parent"], sorted(mine)
    yield Batch(t + 1_000, (
        record(mine["parent"], 1, 100, c.Draft(ChildStarted("kid-3", "wf", pool="nobody"), "kid#3")),
        finish(mine["flaky"], 1),
        c.Terminate("again"),
        c.Sweep(),  # the deadline of `late`
    ))  # fmt: skip
    yield Batch(t + 2_000, (
        c.Cancel("parent", reason="enough"),
        c.Restart("again"),
        c.Cancel("held"),
        event("e1", manifests_at=1),  # a duplicate
    ))  # fmt: skip
    yield Batch(t + 3_000, (c.Finish(mine["parent"], 2, c.Canceled("enough")), c.Sweep()))
    yield Batch(t + 4_000, (c.Deliver(), claim("q12")))
    yield Batch(t + 5_000, (c.Deliver(),))  # what the child says of its end


def kinds_used(batches: Iterable[Batch]) -> set[type[c.Command]]:
    """Which commands a workload has."""
    return {type(command) for batch in batches for command in batch.commands}


def entries_used(batches: Iterable[Batch]) -> set[type[Body]]:
    """Which entries of a worker a workload has."""
    writes = (command for batch in batches for command in batch.commands if isinstance(command, c.Record))
    return {type(draft.body) for write in writes for draft in write.entries}

"""Every kind of command, made of two small numbers and what has been seen so far: right ones and wrong ones."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import (
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
    StepFailed,
    StepRetried,
    TimerFired,
    raw,
)
from stepwell.model.rows import Pool
from stepwell.model.words import OutputKind

BIG = '"' + "long é " * 300 + '"'
PAYLOADS = ("null", "1", '{"a":[1,"é"]}', BIG)
RETRIES = (None, '{"max_attempts":3,"initial_ms":100}')
MATCHES = (
    c.Match("flow", "one"),
    c.Match("flow", "two", pool="p", pool_key="x", retry=RETRIES[1]),
    c.Match("flow", "three", version="v", pool="p", pool_key="y", priority=-1, requires="gpu"),
)


class Held(Struct):
    """A lease that was told to somebody, perhaps long over."""

    lease: c.Lease
    kind: str
    seen: int
    n: int = 1
    said: int = 0
    over: bool = False


class World:
    """What callers and workers know."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.held: list[Held] = []
        self.runs: list[tuple[str, str]] = [("main", "r0")]
        self.revisions = {"main": 0, "b": 0}
        self.secrets = 0
        self.actions: list[str] = []
        self.sent: list[tuple[c.Command, Held | None]] = []

    def secret(self) -> str:
        self.secrets += 1
        return f"theirs-{self.secrets}"

    def learn(self, command: c.Command, held: Held | None, reply: Any) -> None:
        """What a caller does with its answer."""
        if isinstance(reply, c.Claimed):
            self._take(*reply.tasks)
        elif isinstance(reply, c.Started):
            self._meet(getattr(command, "scope", "main"), reply.run_id)
            if reply.claim is not None:
                self._take(reply.claim)
        elif isinstance(reply, c.Accepted):
            for run_id in reply.run_ids:
                self._meet(getattr(command, "scope", "main"), run_id)
        elif isinstance(reply, c.Revision):
            self.revisions[getattr(command, "scope", "main")] = reply.revision
        elif isinstance(reply, c.Said) and held is not None:
            held.said = reply.next
        elif isinstance(reply, c.Recorded) and held is not None:
            held.seen = max(held.seen, reply.head)
            for draft in getattr(command, "entries", ()):
                if isinstance(draft.body, ChildStarted):
                    self._meet("main", draft.body.child)
        elif held is not None:
            self._mend(held, command, reply)

    def _mend(self, held: Held, command: c.Command, reply: Any) -> None:
        """What a worker does when its lease is over, or when it was refused."""
        held.over = isinstance(reply, c.Done) or getattr(reply, "code", "") in ("stale", "ended", "unknown")
        if isinstance(reply, errors.OutOfStep):
            held.n = reply.fields.get("last", held.n - 1) + 1
        elif isinstance(reply, errors.StepwellError):
            held.n = getattr(command, "n", held.n)
        if isinstance(reply, errors.Unseen) and reply.entries:  # a restart alone has nothing to show
            held.seen = reply.entries[-1].seq

    def _take(self, *tasks: c.Leased) -> None:
        for task in tasks:
            if all(task.lease != one.lease for one in self.held):
                self.held.append(Held(task.lease, task.kind, task.seen, said=task.output_n))
        del self.held[:-12]

    def _meet(self, scope: str, run_id: str) -> None:
        if (scope, run_id) not in self.runs:
            self.runs.append((scope, run_id))

    def lease(self, a: int, *, turns: bool) -> Held:
        """Mostly one that may be live, and of the kind that may write this; else any, or one that nobody ever had."""
        live = [one for one in self.held if not one.over and (one.kind == "turn" or not turns)]
        fit = live if live and a < 7 else self.held
        return fit[-1 - a % len(fit)] if fit else Held(c.Lease(1, 1, 1, "none"), "turn", 0)

    def run(self, a: int) -> tuple[str, str]:
        return self.runs[-1 - a % len(self.runs)]


def next_n(held: Held, b: int) -> int:
    """The number of the next write; now and then the last one again, or one too many."""
    if b == 6:
        return max(held.n - 1, 0)
    if b == 7:
        return held.n + 1
    held.n += 1
    return held.n - 1


def body(world: World, a: int, b: int) -> Body:
    payload = raw(PAYLOADS[b % 4])
    bodies: tuple[Body, ...] = (
        StepCompleted(payload),
        StepFailed(payload),
        StepRetried(1, world.clock() + 5),
        ActionScheduled("m:f", payload, retry=raw(RETRIES[1])),
        ActionScheduled("m:g", payload, pool="p", pool_key="x", due_at=world.clock() + 500 * b),
        ChildStarted(f"kid{world.secrets}-{a}", "wf2", input=payload, attached=b % 3 != 0),
        TimerFired(world.clock()),
        PatchMarked("p"),
        ActionScheduled("m:h", timeout_ms=5, deadline=world.clock() + 300 * b),
        StateSet("xyz"[b % 3], payload),
        SignalSent(world.run(b)[1], "go", payload, dedup=f"s{a}" if b % 2 else None),
        CancelSent(world.run(a + b)[1], "asked"),
        EventSent(f"d{b % 5}"),
        ActionCanceled(),
    )
    return bodies[(a + 3 * b) % len(bodies)]


def draft(world: World, a: int, b: int, key: str) -> c.Draft:
    """An entry with what goes with it."""
    what = body(world, a, b)
    if isinstance(what, ActionScheduled):
        world.actions.append(key)
    if isinstance(what, ActionCanceled) and world.actions:
        return c.Draft(what, world.actions[-1 - b % len(world.actions)])
    if not isinstance(what, EventSent):
        return c.Draft(what, key)
    new = c.NewEvent(what.id, "t", "2026", "other" if a == 7 else "h", PAYLOADS[b % 4])
    matches = (*MATCHES[: b % 3], c.Match("app", "wf", workflow="wf"))
    return c.Draft(what, key, c.Emission((c.Emitted(new, matches),), world.revisions["main"] + (b == 6)))


def record(world: World, held: Held, a: int, b: int) -> c.Command:
    """Keys are never used twice, as a worker sees to."""
    n = next_n(held, b)
    stem = f"s{held.lease.run_no}.{held.lease.epoch}.{n}"
    drafts = tuple(draft(world, a + i, b + i, f"{stem}.{i}") for i in range(1 + a % 3))
    return c.Record(held.lease, n, held.seen, drafts)


def park(world: World, held: Held, a: int, b: int) -> c.Command:
    waits = (("signal:go",), ("timer:t", "signal:go"), ("action:x", "child:y"), ())[a % 4]
    timed = "timer:t" in waits
    due_at = world.clock() + 1_000 * (b - 1) if timed else None
    seen = 0 if b == 4 else held.seen + (b % 2) * 50
    return c.Park(held.lease, next_n(held, b), seen, waits, due_at, "t" if timed else None)


def finish(world: World, held: Held, a: int, b: int) -> c.Command:
    signals = (c.CarriedSignal("go", PAYLOADS[b % 4]),)
    outcomes: tuple[Any, ...] = (
        c.Completed(PAYLOADS[b % 4], "blocked" if b == 1 else None),
        c.Canceled("asked"),
        c.Continued(f"next{world.secrets}-{a}", "2", held.seen + 50 * (b % 2), signals=signals),
    )
    return c.Finish(held.lease, next_n(held, b), outcomes[a % 3], sends(world, a, b))


def sends(world: World, a: int, b: int) -> c.Emission | None:
    """The events of a result: some new, some there, some with another body, some matched too early."""
    events = tuple(
        c.Emitted(c.NewEvent(f"n{(a + i) % 5}", "t", "2026", "other" if b == 7 else "h", PAYLOADS[b % 4]), MATCHES[:i])
        for i in range(a % 3)
    )
    return c.Emission(events, world.revisions["main"] + (b == 6)) if b > 1 else None


def fail(world: World, held: Held, a: int, b: int) -> c.Command:
    return c.Fail(held.lease, next_n(held, b), PAYLOADS[a % 4], retry=b != 0, sends=sends(world, a, b))


def release(world: World, held: Held, a: int, b: int) -> c.Command:
    hold = ("mismatch", "paused")[a % 2] if b == 5 else None
    return c.Release(held.lease, next_n(held, b), delay_ms=300 * (a % 3), hold=hold, diff="- a")


def mutate(world: World, held: Held, a: int, b: int) -> c.Command:
    n = next_n(held, b)
    key = f"m{held.lease.run_no}.{held.lease.epoch}.{n}"
    return c.Mutate(held.lease, n, held.seen, key, "m:bad" if a == 0 else "m:good", PAYLOADS[a % 4])


KINDS: tuple[OutputKind, ...] = ("stdout", "stderr", "agent")


def say(world: World, held: Held, a: int, b: int) -> c.Command:
    chunks = tuple((KINDS[i], "o\0"[b == 3] * (1 + 90 * b)) for i in range(1 + a % 3))
    return c.Say(held.lease, max(0, held.said + (b == 7) - (b == 6)), chunks)


WRITES: dict[str, Callable[[World, Held, int, int], c.Command]] = {
    "record": record,
    "record again": record,
    "park": park,
    "finish": finish,
    "fail": fail,
    "release": release,
    "mutate": mutate,
    "say": say,
}


def start(world: World, a: int, b: int) -> c.Command:
    fused = c.ClaimFor(f"w{b % 2}", 5_000, world.secret()) if a % 2 else None
    reuse = ("return", "return", "raise", "replace")[b % 4]
    command = c.StartRun(f"r{a}", "wf", PAYLOADS[(a + b // 7) % 4], scope="b" if b == 5 else "main", claim_for=fused)
    command.reuse = "replace" if reuse == "replace" else "raise" if reuse == "raise" else "return"
    if b in (2, 3):
        command.pool, command.pool_key, command.priority = "p", "xy"[b - 2], a - 3
    if b == 4:
        command.due_at, command.deadline = world.clock() + 700, world.clock() + 30_000
    return command


def accept(world: World, a: int, b: int) -> c.Command:
    scope = "b" if b == 5 else "main"
    new = c.NewEvent(f"e{a}", "t", "2026", "other" if b == 7 else "h", PAYLOADS[a % 4])
    return c.AcceptEvent(new, MATCHES[: b % 4], world.revisions[scope] + (b == 6), scope=scope)


def adopt(world: World, a: int, b: int) -> c.Command:
    at = world.clock() - 1_000 * (b + 1)
    runs = tuple(
        c.AdoptedRun(
            f"old{a}-{i}",
            "flow",
            "one",
            at,
            at + 500,
            ("completed", "failed", "canceled", "running" if b == 6 else "completed")[(a + i) % 4],
            started_at=None if b == 1 else at + 10,
            replay=i,
            result=PAYLOADS[b % 4],
            error=PAYLOADS[a % 4],
            output=(("stdout", "o" * 90 * b), ("stderr", "e")),
        )
        for i in range(a % 3)
    )
    new = c.NewEvent(f"old{a}", "t", "2026", "other" if b == 7 else "h", PAYLOADS[b % 4])
    return c.AdoptEvent(new, at, runs, scope="b" if b == 5 else "main")


def replay(world: World, a: int, b: int) -> c.Command:
    return c.ReplayEvent(f"e{a % 4}", MATCHES[: b % 4], world.revisions["main"])


def manifests(world: World, a: int, b: int) -> c.Command:
    return c.SyncManifests(tuple((f"f{i}", "1", f"h{b % 3}", "{}") for i in range(a % 3)))


def claim(world: World, a: int, b: int) -> c.Command:
    pools = ((), (), ("p",), ("default", "p"))[b % 4]
    request = f"theirs-{world.secrets}" if b == 7 else world.secret()
    scope, requires = ("main" if b == 6 else None), ("", "function:m:f") if b == 5 else None
    return c.Claim(f"w{a % 3}", request, pools, requires, 1 + a, 3_000 if b == 3 else 10_000, scope)


def sync(world: World, a: int, b: int) -> c.Command:
    beats = tuple(c.Beat(one.lease, one.seen - b, PAYLOADS[b % 4]) for one in world.held[-1 - a :])
    return c.Sync("w0", beats, 10_000)


def signal(world: World, a: int, b: int) -> c.Command:
    scope, run_id = world.run(a)
    return c.Signal(run_id, "go", PAYLOADS[b % 4], f"d{b % 3}" if b > 3 else None, scope=scope)


def pool(world: World, a: int, b: int) -> c.Command:
    rows = (
        Pool("main", "p", limit=1 + a % 3),
        Pool("main", "p", key_limit=1 + a % 2),
        Pool("main", "p", rate=1 + a, rate_ms=500),
        Pool("main", "p", paused=True),
        Pool("main", "p"),
        Pool("b", "default", limit=0),
        Pool("main", "default", key_limit=1),
        Pool("main", "default"),
    )
    return c.SetPool(rows[b])


def invoke(world: World, a: int, b: int) -> c.Command:
    function = ("m:good", "m:good", "m:bad", "m:nobody")[a % 4]
    return c.Invoke(function, PAYLOADS[b % 4], request=f"request-{a % 3}" if b > 3 else None)


def named(kind: Callable[[str, str, int], c.Command]) -> Callable[[World, int, int], c.Command]:
    """A command on one of the runs that have been seen."""

    def make(world: World, a: int, b: int) -> c.Command:
        scope, run_id = world.run(a)
        return kind(run_id, "b" if b == 7 else scope, b)

    return make


HOLDS = ("paused", "paused", "mismatch", "stalled", "because")
MOVES: dict[str, Callable[[World, int, int], c.Command]] = {
    "start": start,
    "start again": start,
    "accept": accept,
    "adopt": adopt,
    "replay": replay,
    "manifests": manifests,
    "claim": claim,
    "claim again": claim,
    "claim more": claim,
    "sync": sync,
    "signal": signal,
    "pool": pool,
    "invoke": invoke,
    "cancel": named(lambda run_id, scope, b: c.Cancel(run_id, scope=scope)),
    "terminate": named(lambda run_id, scope, b: c.Terminate(run_id, scope=scope)),
    "hold": named(lambda run_id, scope, b: c.HoldRun(run_id, HOLDS[b % 5], scope=scope)),
    "free": named(lambda run_id, scope, b: c.ReleaseRun(run_id, scope=scope)),
    "restart": named(lambda run_id, scope, b: c.Restart(run_id, b * b // 2, scope=scope)),
    "sweep": lambda world, a, b: c.Sweep(1 + b),
    "bury": lambda world, a, b: c.Bury(f"w{a % 3}", 1 + b),
    "fire": lambda world, a, b: c.Fire(1 + b),
    "deliver": lambda world, a, b: c.Deliver(1 + b),
    "promote": lambda world, a, b: c.Promote(limit=1 + b),
    "prune": lambda world, a, b: c.Prune(1 + b),
}


def move(world: World, name: str, a: int, b: int) -> tuple[c.Command, Held | None]:
    """The command of a move, and the lease that it writes with."""
    if name == "repeat" and world.sent:
        return world.sent[-1 - a % len(world.sent)]
    if name in WRITES:
        held = world.lease(a, turns=name in ("record", "record again", "park", "mutate"))
        return WRITES[name](world, held, a, b), held
    return MOVES.get(name, claim)(world, a, b), None


NAMES = (*WRITES, *MOVES, "repeat")

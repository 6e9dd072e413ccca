"""Plays everybody around a run, out of one seed: workers, action workers, callers, the clock, and chance.

Each move is a method; what it may meet is a lost answer, a write that comes twice, a life that ends, a lease that is
over. After the moves comes the calm: nothing goes wrong any more, and every run must end.
"""

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any, cast

from msgspec import json

from stepwell.functions.errors import NonRetryable
from stepwell.functions.values import encode
from stepwell.kernel.unit import Mutations
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import RunParked, StepCompleted, decode_body
from stepwell.model.rows import Run
from stepwell.model.settings import Settings
from stepwell.store.port import Store, scan_all
from stepwell.workflow.turn import Done, Failed, Matched, Work
from tests.support import Bench, Clock
from tests.workflow.lives import Bad, Life, Told
from tests.workflow.player import Boom, act, fail, look, play
from tests.workflow.programs import SIGNALS, Node

SETTINGS = Settings(lease_ms=10_000, lost_leases=1_000)
LEASE_MS = 10_000
CALM = 20_000
Move = Callable[["Driver"], bool]


class Fatal(NonRetryable):
    """A failure that no policy tries again."""


class Driver:
    """Lives one program as run `r`. `log` has the last moves, `counts` how often each was made."""

    def __init__(self, store: Store, program: Node, seed: str, mutations: Mutations | None = None) -> None:
        self.rng, self.program = Random(seed), program
        self.clock = Clock()
        self.bench = Bench(store, settings=SETTINGS, clock=self.clock, mutations=mutations)
        self.lives: list[Life] = []
        self.ghosts: list[c.Leased] = []
        self.actions: list[tuple[c.Leased, str]] = []
        self.told: dict[str, Told] = {}
        self.first: dict[str, c.Leased] = {}
        self.epochs: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.log: deque[str] = deque(maxlen=60)
        self.revision, self.nonce, self.sent_signals = 0, 0, 0
        self.junk: list[object] = []

    # ── the whole of it ──────────────────────────────────────────────────────────────────────────────────────────

    def live(self, moves: int) -> None:
        """Starts the run, makes so many moves, then lets everything come to its end."""
        self._begin()
        names = list(MOVES)
        weights = [MOVES[name] for name in names]
        for name in self.rng.choices(names, weights, k=moves):
            if getattr(self, name)():
                self.counts[name] += 1
        self.log.append("── calm ──")
        self._calm()

    def close(self) -> None:
        """Takes out of memory what a failure left there."""
        for life in self.lives:
            life.close()
        self.bench.close()

    def _begin(self) -> None:
        text = encode({"program": self.program, "root": "r"})
        start = c.StartRun("r", play.path, text, version="1", requires=f"workflow:{play.path}")
        if self.rng.random() < 0.05:
            start.deadline = self.clock.now + self.rng.choice([1, 1_000, 20_000])
        if self.rng.random() < 0.1:
            start.due_at = self.clock.now + 500
        elif self.rng.random() < 0.5:
            start.claim_for = c.ClaimFor("w0", LEASE_MS, self._secret())
        claim = self.bench.do(start).claim
        if claim is not None:
            self._embody(claim, "w0")

    def _secret(self) -> str:
        self.nonce += 1
        return f"secret {self.nonce}"

    def _note(self, *what: object) -> bool:
        self.log.append(" ".join(str(one) for one in what))
        return True

    # ── lives ────────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self) -> bool:
        """A worker leases turns."""
        worker = self.rng.choice(["w0", "w1"])
        command = c.Claim(worker, self._secret(), requires=(f"workflow:{play.path}",), lease_ms=LEASE_MS)
        command.limit = self.rng.randrange(1, 4)
        claimed = self.bench.do(command)
        if claimed.tasks and self.rng.random() < 0.1:
            claimed = self.bench.do(command)  # the first answer was lost
        for leased in claimed.tasks:
            self._embody(leased, worker)
        return bool(claimed.tasks)

    def _embody(self, leased: c.Leased, worker: str) -> None:
        run_id = leased.run.id
        self._note("life of", run_id, "epoch", leased.lease.epoch, "with", len(leased.journal), "entries")
        self.first.setdefault(run_id, leased)
        self.epochs[run_id] = leased.lease.epoch
        self.junk = [object() for _ in range(self.rng.randrange(50))]
        life = Life(leased, worker)
        life.turn.begin()
        self._stories(run_id).learn(life.trace.seen, life.asked, f"a new life of {run_id}")
        self.lives.append(life)

    def _stories(self, run_id: str) -> Told:
        return self.told.setdefault(run_id, Told())

    def _end_life(self, life: Life) -> None:
        self.lives.remove(life)
        self.ghosts = [*self.ghosts, life.leased][-3:]
        self._stories(life.run_id).learn(*life.close(), f"a life of {life.run_id}")

    def crash(self) -> bool:
        """A life ends without a word, whatever it was about to do."""
        if not self.lives:
            return False
        life = self.rng.choice(self.lives)
        self._end_life(life)
        return self._note("crash of", life.run_id, "epoch", life.leased.lease.epoch)

    def drain(self) -> bool:
        """A life hands its lease back."""
        ready = [life for life in self.lives if life.command is None]
        if not ready:
            return False
        life = self.rng.choice(ready)
        reply = self.bench.all(c.Release(life.leased.lease, life.turn.n + 1))[0]
        self._note("drain of", life.run_id, type(reply).__name__)
        self._end_life(life)
        return True

    def ghost(self) -> bool:
        """A worker whose lease is over writes all the same."""
        over = [one for one in self.ghosts if one.lease.epoch < self.epochs[one.run.id]]
        if not over:
            return False
        lease = self.rng.choice(over).lease
        draft = c.Draft(StepCompleted(), "ghost#0")
        for n in (1, 2, 3):
            reply = self.bench.all(c.Record(lease, n, 1_000, (draft,)))[0]
            if not isinstance(reply, errors.Stale | errors.Ended):
                raise Bad(f"a stale lease was answered with {reply}")
        return self._note("ghost", lease.epoch)

    # ── what a life writes ───────────────────────────────────────────────────────────────────────────────────────

    def pump(self) -> bool:
        """Asks a life for its next write."""
        ready = [life for life in self.lives if life.command is None]
        if not ready:
            return False
        life = self.rng.choice(ready)
        return self._next(life, self.clock.now - self.rng.choice([0, 0, 0, 1, 3]))

    def _next(self, life: Life, now: int) -> bool:
        life.command = life.turn.next(now)
        self._work(life)
        return life.command is not None and self._note("next of", life.run_id, _said(life.command))

    def _work(self, life: Life) -> None:
        life.take_work()
        for key in life.turn.dropped:
            if self.rng.random() < 0.7:
                life.jobs.pop(key, None)
        life.turn.dropped.clear()

    def park(self) -> bool:
        """Asks a life that only waits to give its lease back."""
        ready = [life for life in self.lives if life.command is None and life.turn.idle]
        return bool(ready) and self._park(self.rng.choice(ready))

    def _park(self, life: Life) -> bool:
        life.command = life.turn.park(self.clock.now)
        self._work(life)
        if life.command is None:
            raise Bad(f"{life.run_id} is idle, and does not park")
        return self._note("park of", life.run_id, _said(life.command))

    def send(self) -> bool:
        """Sends what some lives want written in one batch, once or twice; some answers get lost."""
        ready = [life for life in self.lives if life.command is not None]
        if not ready:
            return False
        chosen = self.rng.sample(ready, self.rng.randrange(1, len(ready) + 1))
        outside = [self._outside()] if self.rng.random() < 0.05 else []
        twice = [life for life in chosen if self.rng.random() < 0.05]
        commands = [*outside, *(life.command for life in chosen), *(life.command for life in twice)]
        replies = self.bench.all(*commands)[len(outside) :]
        for life, reply in zip(twice, replies[len(chosen) :], strict=True):
            at = chosen.index(life)
            _agree(replies[at], reply)
            replies[at] = self.rng.choice([replies[at], reply])
        for life, reply in zip(chosen, replies, strict=False):
            self._fate(life, reply)
        return True

    def _fate(self, life: Life, reply: Any) -> None:
        """What becomes of an answer."""
        chance = self.rng.random()
        if chance < 0.08:
            life.sent = self._note("the answer is lost to", life.run_id)
        elif chance < 0.1:
            self._note("crash before the answer of", life.run_id)
            self._end_life(life)
        else:
            self._hand(life, reply)

    def _hand(self, life: Life, reply: Any) -> None:
        command, life.command = life.command, None
        repeated, life.sent = life.sent, False
        if isinstance(reply, errors.StepwellError):
            self._note(life.run_id, "is refused:", reply)
            if isinstance(reply, errors.Stale | errors.Ended):
                self._end_life(life)
                return
            life.turn.refused(reply)
        else:
            if life.leased.lease.epoch < self.epochs[life.run_id] and not repeated:
                raise Bad(f"a stale life of {life.run_id} wrote {_said(command)}")
            life.turn.answered(reply)
            self._note(life.run_id, "is answered", _short(reply))
            drafts = command.entries if isinstance(command, c.Record) else ()
            life.learn_end([*getattr(reply, "own", ()), *getattr(reply, "missed", ())], drafts)
        self._after(life)

    def _after(self, life: Life) -> None:
        if life.turn.state == "held":
            raise Bad(f"{life.run_id} is held: {life.turn.instance.mismatch}")
        if life.turn.state == "open":
            self._work(life)
        else:
            self._end_life(life)

    def complete(self) -> bool:
        """Something that runs on a worker ends, well or badly."""
        ready = [(life, work) for life in self.lives for work in life.jobs.values()]
        if not ready:
            return False
        life, work = self.rng.choice(ready)
        return self._complete(life, work, fails=self.rng.random() < 0.25)

    def _complete(self, life: Life, work: Work, *, fails: bool) -> bool:
        del life.jobs[work.key]
        outcome = self._outcome(life, work, fails)
        life.turn.worked(work.key, outcome, self.clock.now)
        return self._note("end of", work.key, outcome)

    def _outcome(self, life: Life, work: Work, fails: bool) -> Done | Failed | Matched:
        self.nonce += 1
        if work.kind == "match":
            return self._matched(life, work)
        if work.fn is fail or (fails and work.fn is not look):
            return Failed(self.rng.choice([Boom, Fatal])(f"boom {self.nonce}"))
        value = self.nonce if work.fn is look else work.fn(nonce=self.nonce)
        result = encode(value)
        return Done(result, value) if self.rng.random() < 0.5 and isinstance(value, str) else Done(result)

    def _matched(self, life: Life, work: Work) -> Matched:
        event = work.args[0]
        payload = encode(event.payload)
        new = c.NewEvent(event.id or f"{life.run_id} {work.key}", event.type, "2026", payload, payload)
        matches = (c.Match("f", "s", requires="flow:f"),) if self.rng.random() < 0.3 else ()
        return Matched(c.Emission((c.Emitted(new, matches),), self.revision))

    # ── others ───────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_action(self) -> bool:
        """A worker leases actions."""
        command = c.Claim("a", self._secret(), requires=(f"function:{act.path}",), lease_ms=LEASE_MS)
        command.limit = self.rng.randrange(1, 4)
        leases = self.bench.do(command).tasks
        self.actions += [(leased, self._secret()) for leased in leases]
        return bool(leases) and self._note("actions begin:", len(leases))

    def end_action(self) -> bool:
        """An action ends, well or badly; some answers get lost."""
        if not self.actions:
            return False
        leased, nonce = self.actions.pop(self.rng.randrange(len(self.actions)))
        error = json.encode({"type": "Boom", "message": nonce}).decode()
        command: Any = c.Finish(leased.lease, 1, c.Completed(encode(f"acted {nonce}")))
        if self.rng.random() < 0.3:
            command = c.Fail(leased.lease, 1, error, retry=self.rng.random() < 0.8)
        reply = self.bench.all(command)[0]
        if self.rng.random() < 0.1 and not isinstance(reply, errors.StepwellError):
            _agree(reply, self.bench.do(command))
        return self._note("action", leased.run.id, leased.key, "ends:", _short(reply))

    def leave_action(self) -> bool:
        """A worker forgets an action."""
        if not self.actions:
            return False
        self.actions.pop(self.rng.randrange(len(self.actions)))
        return True

    def sync(self) -> bool:
        """A worker extends its leases, and hears what others wrote."""
        worker = self.rng.choice(["w0", "w1"])
        mine = [life for life in self.lives if life.worker == worker]
        beats = tuple(c.Beat(life.leased.lease, life.turn.seen) for life in mine)
        if not mine:
            return False
        for life, told in zip(mine, self.bench.do(c.Sync(worker, beats, LEASE_MS)).tasks, strict=True):
            if told.error is not None:
                self._end_life(life)
            else:
                life.turn.heard(told.missed)
                self._work(life)
        return self._note("sync of", worker)

    def role(self) -> bool:
        """One of the engine's roles does what there is to do."""
        command: Any = self.rng.choice([c.Sweep, c.Fire, c.Deliver, c.Promote])()
        worked = self.bench.do(command)
        return bool(worked.count) and self._note(type(command).__name__, worked.count)

    def tick(self) -> bool:
        """Time passes."""
        self.clock.tick(self.rng.choice([0, 1, 1, 100, 250, 500, 999, 1_000, 2_000]))
        return self._note("tick to", self.clock.now)

    def tick_exactly(self) -> bool:
        """Time passes until exactly when something is due; a signal may come in that millisecond."""
        due = self._due()
        if due is None:
            return False
        self.clock.now = max(self.clock.now, due)
        self._note("tick exactly to", self.clock.now)
        if self.rng.random() < 0.5:
            self.bench.all(self._outside())
        return True

    def tick_far(self) -> bool:
        """Nobody is there for a while: every lease is over."""
        self.clock.tick(self.rng.choice([5_000, LEASE_MS + 1, 60_000]))
        return self._note("tick far to", self.clock.now)

    def _due(self) -> int | None:
        with self.bench.reader() as reader:
            store = reader.next_due()
        dues = [life.turn.due for life in self.lives]
        return min((due for due in [store, *dues] if due is not None), default=None)

    def outside(self) -> bool:
        """A caller signals, or asks for an end."""
        command = self._outside()
        reply = self.bench.all(command)[0]
        return self._note("outside", command, _short(reply))

    def _outside(self) -> c.Command:
        run_id = self.rng.choice(["r", "r", "r", *self.told])
        chance = self.rng.random()
        if chance < 0.06:
            return c.Cancel(run_id, "caller", "asked")
        if chance < 0.08 and run_id != "r":
            return c.Terminate(run_id, "caller", "told")
        self.sent_signals += 1
        dedup = self.rng.choice([None, None, "d1", "d2", "d3"])
        payload = encode(f"signal {dedup or self.sent_signals}")
        return c.Signal(run_id, self.rng.choice(SIGNALS) if dedup is None else "go", payload, dedup)

    def manifests(self) -> bool:
        """The manifests change: what was matched is outdated."""
        self.nonce += 1
        synced = self.bench.do(c.SyncManifests((("flow", "1", f"hash {self.nonce}", "{}"),)))
        if self.rng.random() < 0.7:
            self.revision = synced.revision
        return self._note("manifests", synced.revision)

    # ── the calm ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _calm(self) -> None:
        with self.bench.reader() as reader:
            self.revision = int(reader.meta("revision:main") or 0)
        for _ in range(CALM):
            if self._quiet_move():
                continue
            open_runs = self._open_runs()
            if not open_runs:
                return
            if not (self._deliver_what_is_awaited(open_runs) or self._wait(open_runs)):
                raise Bad(f"nothing moves any more: {self._why(open_runs)}")
        raise Bad(f"no end after {CALM} moves: {self._why(self._open_runs())}")

    def _quiet_move(self) -> bool:
        """What happens by itself when nothing goes wrong."""
        for life in list(self.lives):
            if life.command is not None:
                self._hand(life, self.bench.all(life.command)[0])
                return True
            if life.jobs:
                return self._complete(life, next(iter(life.jobs.values())), fails=False)
            if self._next(life, self.clock.now):
                return True
            if life.jobs:
                return True
            if life.turn.idle:
                return self._park(life)
        return self._quiet_others()

    def _quiet_others(self) -> bool:
        if self.begin_action() or self.actions:
            leased, nonce = self.actions.pop(0)
            self.bench.all(c.Finish(leased.lease, 1, c.Completed(encode(f"acted {nonce}"))))
            return True
        counts = [self.bench.do(command).count for command in (c.Sweep(), c.Fire(), c.Deliver(), c.Promote())]
        return any(counts) or self.claim()

    def _open_runs(self) -> list[Run]:
        with self.bench.reader() as reader:
            return [run for run in scan_all(reader) if not run.terminal and run.kind == "workflow"]

    def _deliver_what_is_awaited(self, runs: list[Run]) -> bool:
        """Sends the first signal that a parked run waits for; every parked run names what it waits for."""
        for run in runs:
            for wait in self._waits(run):
                kind, _, name = wait.partition(":")
                if kind not in ("timer", "action", "child", "signal") or not name:
                    raise Bad(f"{run.id} waits for {wait!r}, which nobody can name")
                if kind == "signal":
                    self.bench.do(c.Signal(run.id, name, '"calm"'))
                    return self._note("calm signal", name, "to", run.id)
        return False

    def _waits(self, run: Run) -> list[str]:
        parked = [entry for entry in self.bench.journal(run.id) if entry.kind == "run.parked"]
        if run.hold is not None:
            raise Bad(f"{run.id} is held: {self._why([run])}")
        if not parked:
            return []
        waits = cast("RunParked", decode_body("run.parked", parked[-1].data)).waits
        if not waits:
            raise Bad(f"{run.id} parked without saying what for")
        return waits

    def _wait(self, open_runs: list[Run]) -> bool:
        """Time passes until something is due, or a forgotten lease is over."""
        due = self._due()
        with self.bench.reader() as reader:
            leases = [
                task.lease_until for run in open_runs for task in reader.tasks_of(run.no) if task.state == "leased"
            ]
        dues = [at + (at in leases) for at in (due, *leases) if at is not None]
        later = [at for at in dues if at > self.clock.now]
        if not later:
            return False
        self.clock.now = min(later)
        return self._note("calm tick to", self.clock.now)

    def _why(self, runs: list[Run]) -> str:
        lines = []
        for run in runs:
            last = [f"{entry.kind} {entry.key or ''}" for entry in self.bench.journal(run.id)[-8:]]
            lines.append(f"{run.id} {run.status} hold={run.hold}: {last}")
        return "\n".join(lines)


#: The moves, and how often each is made.
MOVES: dict[str, int] = {
    "pump": 200,
    "send": 200,
    "complete": 200,
    "claim": 80,
    "role": 80,
    "begin_action": 40,
    "end_action": 60,
    "leave_action": 3,
    "park": 40,
    "sync": 30,
    "outside": 30,
    "tick": 50,
    "tick_exactly": 30,
    "tick_far": 10,
    "crash": 30,
    "drain": 10,
    "ghost": 10,
    "manifests": 5,
}


def _agree(first: Any, again: Any) -> None:
    """The answer to a write that came twice is that of the first."""
    if isinstance(first, c.Recorded) and isinstance(again, c.Recorded):
        if (first.first, first.head, first.at) != (again.first, again.head, again.at):
            raise Bad(f"a repeated write is answered {again}, after {first}")
    elif type(first) is not type(again) or (isinstance(first, c.Done) and first != again):
        raise Bad(f"a repeated write is answered {again}, after {first}")


def _said(command: Any) -> str:
    """A command for the log."""
    if isinstance(command, c.Record):
        drafts = " ".join(f"{draft.body.kind}:{draft.key}" for draft in command.entries)
        return f"Record {command.n} seen {command.seen} {drafts}"
    fields = [str(getattr(command, name)) for name in ("n", "key", "waits") if hasattr(command, name)]
    return " ".join([type(command).__name__, *fields])


def _short(reply: Any) -> str:
    """A reply for the log."""
    if isinstance(reply, c.Recorded):
        missed, own = [one.seq for one in reply.missed], [one.seq for one in reply.own]
        return f"{reply.first}..{reply.head} missed {missed} own {own}"
    return str(reply)[:200]

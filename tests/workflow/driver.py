"""Lives one program out of one seed: moves by chance, and then the calm.

A move may meet a lost answer, a write that comes twice, a life that ends, a lease that is over. In the calm nothing
goes wrong any more, and every run must end.
"""

from typing import cast

from stepwell.functions.values import encode
from stepwell.kernel.unit import Mutations
from stepwell.model import commands as c
from stepwell.model.entries import RunParked, decode_body
from stepwell.model.rows import Run
from stepwell.store.port import Store
from tests.workflow.hosts import Hosts
from tests.workflow.lives import Bad, Told
from tests.workflow.others import Others
from tests.workflow.player import play
from tests.workflow.programs import Node
from tests.workflow.world import LEASE_MS

CALM = 5_000
#: How many moves are tried until one does something.
TRIES = 8
#: The moves, and how often each is made.
MOVES: dict[str, int] = {
    "pump": 300,
    "send": 300,
    "complete": 200,
    "complete_all": 20,
    "claim": 100,
    "role": 80,
    "begin_action": 60,
    "end_action": 60,
    "leave_action": 3,
    "park": 60,
    "sync": 20,
    "outside": 12,
    "tick": 20,
    "tick_exactly": 25,
    "tick_far": 3,
    "crash": 15,
    "drain": 8,
    "ghost": 10,
    "manifests": 3,
}


class Driver(Hosts, Others):
    """Lives one program as run `r`."""

    def __init__(self, store: Store, program: Node, seed: str, mutations: Mutations | None = None) -> None:
        super().__init__(store, seed, mutations)
        self.program = program

    def live(self, moves: int, newer: Node | None = None, *, fits: bool = True) -> None:
        """Starts the run, makes so many moves, then lets everything come to its end. `newer` is the program that the
        code has become after some of the moves; one that may not fit is taken back when it holds the run.
        """
        self._begin()
        names, weights = list(MOVES), list(MOVES.values())
        for move in range(moves):
            if move % 16 == 0 and not self.open_runs():
                break
            if newer is not None and self.newer is None and self.rng.random() < 0.05:
                self._deploy(newer, fits=fits)
            for name in self.rng.choices(names, weights, k=TRIES):
                if getattr(self, name)():
                    self.counts[name] += 1
                    break
            self._take_back()
        self.log.append("── calm ──")
        self._calm()

    def _deploy(self, newer: Node, *, fits: bool) -> None:
        """New code: every life begins anew, and that of the first run is another story from here on."""
        self.note("── new code ──")
        for life in list(self.lives):
            self.end_life(life)
        self.older = len(self.bench.journal())
        story = self.told.pop("r", Told())
        if not fits:
            self.before = str(self.bench.run().input), story
        self._use(encode({"program": newer, "root": "r"}))

    def _use(self, text: str) -> None:
        self.newer = text
        if "r" in self.first:
            self.first["r"].input = text

    def _take_back(self) -> None:
        """A run that wrong code holds goes on with the right one, as if nothing had been."""
        if self.before is None or (run := self.bench.run()).hold is None:
            return
        held = self.bench.journal()[-1]
        if run.hold != "mismatch" or "- journal" not in held.data or "+ code" not in held.data:
            raise Bad(f"a run that wrong code held is {run.hold}, and says {held.data}")
        text, self.told["r"] = self.before
        self.before, self.older = None, 0
        self._use(text)
        self.bench.do(c.ReleaseRun("r", by="operator"))
        self.counts["taken back"] += 1
        self.note("── the right code again ──")

    def _begin(self) -> None:
        text = encode({"program": self.program, "root": "r"})
        start = c.StartRun("r", play.path, text, version="1", requires=f"workflow:{play.path}")
        if self.rng.random() < 0.05:
            start.deadline = self.clock.now + self.rng.choice([1, 1_000, 20_000])
        if self.rng.random() < 0.1:
            start.due_at = self.clock.now + 500
        elif self.rng.random() < 0.5:
            start.claim_for = c.ClaimFor("w0", LEASE_MS, self.secret())
        claim = self.bench.do(start).claim
        if claim is not None:
            self.embody(claim, "w0")

    # ── the calm ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _calm(self) -> None:
        with self.bench.reader() as reader:
            self.revision = int(reader.meta("revision:main") or 0)
        for _ in range(CALM):
            self._take_back()
            if self._quiet_move():
                continue
            open_runs = self.open_runs()
            if not open_runs:
                return
            if not (self._deliver_what_is_awaited(open_runs) or self._wait(open_runs)):
                raise Bad(f"nothing moves any more: {self._why(open_runs)}")
        raise Bad(f"no end after {CALM} moves: {self._why(self.open_runs())}")

    def _quiet_move(self) -> bool:
        """What happens by itself when nothing goes wrong."""
        for life in list(self.lives):
            if life.command is not None:
                self.hand(life, self.bench.all(life.command)[0])
                return True
            if life.jobs:
                return self.finish_job(life, next(iter(life.jobs.values())), fails=False)
            if self.ask(life, self.clock.now):
                return True
            if life.jobs:
                return True
            if life.turn.idle:
                return self.rest(life)
        return self._quiet_others()

    def _quiet_others(self) -> bool:
        if self.begin_action() or self.actions:
            leased, nonce = self.actions.pop(0)
            self.bench.all(c.Finish(leased.lease, 1, c.Completed(encode(f"acted {nonce}"))))
            return True
        worked = self.bench.all(c.Sweep(), c.Fire(), c.Deliver(), c.Promote())
        return any(one.count for one in worked) or self.claim()

    def _deliver_what_is_awaited(self, runs: list[Run]) -> bool:
        """Sends the first signal that a parked run waits for; every parked run names what it waits for."""
        for run in runs:
            for wait in self._waits(run) if run.status in ("sleeping", "waiting") else ():
                kind, _, name = wait.partition(":")
                if kind not in ("timer", "action", "child", "signal") or not name:
                    raise Bad(f"{run.id} waits for {wait!r}, which nobody can name")
                if kind == "signal":
                    self.bench.do(c.Signal(run.id, name, '"calm"'))
                    return self.note("calm signal", name, "to", run.id)
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
        due = self.due()
        with self.bench.reader() as reader:
            leases = [
                task.lease_until for run in open_runs for task in reader.tasks_of(run.no) if task.state == "leased"
            ]
        dues = [at + (at in leases) for at in (due, *leases) if at is not None]
        later = [at for at in dues if at > self.clock.now]
        if not later:
            return False
        self.clock.now = min(later)
        return self.note("calm tick to", self.clock.now)

    def _why(self, runs: list[Run]) -> str:
        lines = []
        for run in runs:
            last = [f"{entry.kind} {entry.key or ''}" for entry in self.bench.journal(run.id)[-8:]]
            lines.append(f"{run.id} {run.status} hold={run.hold}: {last}")
        return "\n".join(lines)

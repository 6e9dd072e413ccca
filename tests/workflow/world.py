"""What everybody around a run has in common: the kernel, a clock, chance, and a log of what was done."""

from collections import Counter, deque
from random import Random
from typing import Any

from stepwell.functions.values import encode
from stepwell.kernel.unit import Mutations
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.rows import Run
from stepwell.model.settings import Settings
from stepwell.store.port import Store, scan_all
from tests.support import Bench, Clock
from tests.workflow.lives import Bad, Life, Told
from tests.workflow.programs import SIGNALS

SETTINGS = Settings(lease_ms=10_000, lost_leases=1_000, payload_bytes=65_536)
LEASE_MS = 10_000


class World:
    """`rng` decides everything. `log` has the last moves, `counts` how often each was made."""

    def __init__(self, store: Store, seed: str, mutations: Mutations | None = None) -> None:
        self.rng, self.clock = Random(seed), Clock()
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
        self.newer: str | None = None  # the input that new code gives run `r`, once it is there
        self._nothing: dict[str, tuple[int, int]] = {}
        self.before: tuple[str, Told] | None = None  # input and story of `r` before a wrong program came
        self.older = 0  # entries of `r` that old code had a part in

    def close(self) -> None:
        """Takes out of memory what a failure left there."""
        for life in self.lives:
            life.close()
        self.bench.close()

    def note(self, *what: object) -> bool:
        """Something was done."""
        self.log.append(" ".join(str(one) for one in what))
        return True

    def secret(self) -> str:
        """What nobody has used before."""
        self.nonce += 1
        return f"secret {self.nonce}"

    def still(self, what: str, found: bool | None = None) -> bool:
        """Whether there can be nothing new since `what` was last asked for and nothing `found`."""
        stand = (self.bench.lane.commits, self.clock.now)
        if found is not None:
            self._nothing[what] = (0, 0) if found else stand
        return self._nothing.get(what) == stand

    def stories(self, run_id: str) -> Told:
        """What the lives of a run saw so far."""
        return self.told.setdefault(run_id, Told())

    def due(self) -> int | None:
        """When something happens by itself, in the store or in a life."""
        with self.bench.reader() as reader:
            store = reader.next_due()
        dues = [life.turn.due for life in self.lives]
        return min((due for due in [store, *dues] if due is not None), default=None)

    def open_runs(self) -> list[Run]:
        """The workflows that have not ended."""
        with self.bench.reader() as reader:
            return [run for run in scan_all(reader) if not run.terminal and run.kind == "workflow"]

    def call_from_outside(self) -> c.Command:
        """A signal, or seldom something that asks for an end."""
        run_id = self.rng.choice(["r", "r", "r", *self.told])
        chance = self.rng.random()
        if chance < 0.03:
            return c.Cancel(run_id, "caller", "asked")
        if chance < 0.06 and run_id != "r":
            return c.Terminate(run_id, "caller", "told")
        self.sent_signals += 1
        dedup = self.rng.choice([None, None, "d1", "d2", "d3"])
        payload = encode(f"signal {dedup or self.sent_signals}")
        return c.Signal(run_id, self.rng.choice(SIGNALS) if dedup is None else "go", payload, dedup)


def agree(first: Any, again: Any) -> None:
    """The answer to a write that came twice is that of the first; refused for another reason is refused."""
    if isinstance(first, c.Recorded) and isinstance(again, c.Recorded):
        same = (first.first, first.head, first.at) == (again.first, again.head, again.at)
    elif isinstance(first, c.Done):
        same = first == again
    else:
        same = isinstance(first, errors.StepwellError) and isinstance(again, errors.StepwellError)
    if not same:
        raise Bad(f"a repeated write is answered {again}, after {first}")


def said(command: Any) -> str:
    """A command for the log."""
    if isinstance(command, c.Record):
        drafts = " ".join(f"{draft.body.kind}:{draft.key}" for draft in command.entries)
        return f"Record {command.n} seen {command.seen} {drafts}"
    fields = [str(getattr(command, name)) for name in ("n", "key", "waits") if hasattr(command, name)]
    return " ".join([type(command).__name__, *fields])


def short(reply: Any) -> str:
    """A reply for the log."""
    if isinstance(reply, c.Recorded):
        missed, own = [one.seq for one in reply.missed], [one.seq for one in reply.own]
        return f"{reply.first}..{reply.head} missed {missed} own {own}"
    return str(reply)[:200]

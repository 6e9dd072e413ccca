"""A bench drives the real lane, but on the caller's thread: what a test sends is one batch, decided here and now."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, TypeVar

from stepwell.engine.answers import Item
from stepwell.engine.committed import Committed
from stepwell.engine.lane import Lane, no_fault
from stepwell.kernel.calls import Postponed
from stepwell.kernel.unit import Mutations
from stepwell.model import commands as c
from stepwell.model.entries import Body
from stepwell.model.errors import StepwellError
from stepwell.model.rows import Entry, Run, Task
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, Session, Store

E = TypeVar("E", bound=StepwellError)
START_MS = 1_700_000_000_000
LEASE_MS = 120_000


class Clock:
    """Time that moves when it is told to."""

    def __init__(self, now: int = START_MS) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def tick(self, ms: int) -> int:
        self.now += ms
        return self.now


class Bench:
    """`all` decides commands as one batch and gives replies and refusals; `do` decides one and raises its refusal."""

    def __init__(
        self,
        store: Store,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        mutations: Mutations | None = None,
        fault: Callable[[str], None] = no_fault,
        session: Session | None = None,
        name: str = "bench",
    ) -> None:
        self.store, self.settings, self.clock = store, settings or Settings(), clock or Clock()
        self.commits: list[Committed] = []
        self._secrets = count(1)
        self.lane = Lane(
            session or store.session(name),
            settings=self.settings,
            clock_ms=self.clock,
            on_commit=self.commits.append,
            mutations=mutations,
            fault=fault,
            monotonic=lambda: self.clock.now / 1_000,
            name=name,
        )

    def close(self) -> None:
        self.lane.close()

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────

    def all(self, *commands: c.Command) -> list[Any]:
        """Replies and refusals of one batch, in the order of the commands."""
        items: list[Item] = [(command, Future(), None) for command in commands]
        places = {id(item[1]): place for place, item in enumerate(items)}
        batch = self.lane._in_order(items)
        replies: list[Any] = [None] * len(items)
        waiting = list(zip(items, batch, strict=True))
        while waiting:
            answered = self.lane._run([command for _, command in waiting])
            later = [pair for pair, reply in zip(waiting, answered, strict=True) if isinstance(reply, Postponed)]
            for (item, _), reply in zip(waiting, answered, strict=True):
                replies[places[id(item[1])]] = reply
            waiting = later
        return replies

    def do(self, command: c.Command) -> Any:
        """The reply of one command, or its refusal raised."""
        reply = self.all(command)[0]
        if isinstance(reply, StepwellError):
            raise reply
        return reply

    def refused(self, command: c.Command, error: type[E]) -> E:
        """The refusal of a command, which has exactly this class."""
        reply = self.all(command)[0]
        assert type(reply) is error, reply
        return reply

    def settle(self) -> None:
        """Everything that the roles of an engine would do now."""
        for command in (c.Sweep(), c.Fire(), c.Deliver(), c.Promote()):
            for _ in range(100):
                if not self.do(command).more:
                    break

    # ── shorthands ───────────────────────────────────────────────────────────────────────────────────────────────

    def secret(self) -> str:
        return f"secret-{next(self._secrets)}"

    def start(self, run_id: str = "r", **fields: Any) -> c.Started:
        started: c.Started = self.do(c.StartRun(run_id, fields.pop("name", "wf"), **fields))
        return started

    def claim(self, limit: int = 100, worker: str = "w", **fields: Any) -> list[c.Leased]:
        """The leases of one claim."""
        claimed: c.Claimed = self.do(c.Claim(worker, self.secret(), limit=limit, **fields))
        return claimed.tasks

    def turn(self, run_id: str = "r", **fields: Any) -> c.Leased:
        """A new workflow run with its first lease."""
        fused = c.ClaimFor("w", LEASE_MS, self.secret())
        claim = self.start(run_id, claim_for=fused, **fields).claim
        assert claim is not None
        return claim

    def record(self, lease: c.Lease, n: int, *bodies: Body, key: str | None = "k", seen: int = 1_000) -> c.Recorded:
        drafts = tuple(c.Draft(body, key if len(bodies) == 1 else f"{key}{i}") for i, body in enumerate(bodies))
        recorded: c.Recorded = self.do(c.Record(lease, n, seen, drafts))
        return recorded

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with closing(self.store.reader()) as reader:
            yield reader

    def run(self, run_id: str = "r", scope: str = "main") -> Run:
        with self.reader() as reader:
            run = reader.run(scope, run_id)
        assert run is not None, run_id
        return run

    def journal(self, run_id: str = "r", scope: str = "main") -> list[Entry]:
        number = self.run(run_id, scope).no
        with self.reader() as reader:
            return reader.entries(number, limit=100_000)

    def kinds(self, run_id: str = "r") -> list[str]:
        return [entry.kind for entry in self.journal(run_id)]

    def tasks(self, run_id: str = "r") -> Sequence[Task]:
        number = self.run(run_id).no
        with self.reader() as reader:
            return reader.tasks_of(number)

    def task(self, run_id: str = "r") -> Task:
        """The task of a run's body."""
        run = self.run(run_id)
        return next(task for task in self.tasks(run_id) if task.k == run.turn)

"""One life of a run: a lease, the turn that speaks for it, what its body saw. A run has many, and all see the same."""

from typing import Any

from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted, StepFailed
from stepwell.model.rows import Entry
from stepwell.workflow.context import Facts
from stepwell.workflow.turn import Turn, Work
from tests.workflow.called import Seen, Trace
from tests.workflow.player import play

#: Entries that end what their key names.
ENDS = frozenset(("step.completed", "step.failed", "action.completed", "action.failed", "child.ended", "timer.fired"))


class Bad(Exception):
    """Something happened that must not."""


class Told:
    """What the lives of one run saw and asked for so far: the longest of them."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.asked: list[str] = []

    def learn(self, seen: list[Seen], asked: list[str], who: str) -> None:
        """Another life's story: one must be the beginning of the other."""
        self.seen = _longer(self.seen, seen, f"what {who} saw")
        self.asked = _longer(self.asked, asked, f"what {who} asked for")


def _longer(known: list[Any], mine: list[Any], what: str) -> list[Any]:
    for at, (one, other) in enumerate(zip(known, mine, strict=False)):
        if one != other:
            raise Bad(f"{what} differs at {at}:\n  known {one}\n  now   {other}")
    return mine if len(mine) > len(known) else known


class Life:
    """`command` is what the turn wants sent; `sent`: it was, and the answer is lost. `jobs` run on this worker.

    `misfit`: the code is a wrong one, which does not fit the journal.
    """

    def __init__(self, leased: c.Leased, worker: str) -> None:
        run = leased.run
        facts = Facts(run_id=run.id, name=run.name, version=run.version, generation=run.generation)
        self.leased, self.worker, self.run_id = leased, worker, run.id
        self.trace = Trace()
        self.turn = Turn(leased, play, facts=facts, logger=lambda name, instance: self.trace)
        self.command: Any = None
        self.sent = self.misfit = False
        self.jobs: dict[str, Work] = {}
        self.over = {entry.key for entry in leased.journal if entry.kind in ENDS}

    @property
    def asked(self) -> list[str]:
        """The keys of all that the body asked for, in that order."""
        return list(self.turn.instance.issued)

    def learn_end(self, entries: list[Entry], drafts: tuple[c.Draft, ...]) -> None:
        """Notes which steps are recorded now."""
        self.over.update(entry.key for entry in entries if entry.kind in ENDS)
        self.over.update(draft.key for draft in drafts if isinstance(draft.body, StepCompleted | StepFailed))

    def take_work(self) -> None:
        """Begins what the turn wants done; nothing that is recorded begins again."""
        for work in self.turn.take_work():
            if work.key in self.over:
                raise Bad(f"{work.key} of {self.run_id} was recorded, and is begun again")
            if work.key in self.jobs:
                raise Bad(f"{work.key} of {self.run_id} is begun while it runs")
            self.jobs[work.key] = work

    def close(self) -> tuple[list[Seen], list[str]]:
        """Takes the body out of memory; what it saw and asked for until then. Nothing may come of it any more."""
        seen, asked = list(self.trace.seen), self.asked
        self.trace.closed = True
        self.turn.close()
        if self.turn.take_work() or self.turn.next(1 << 52) is not None:
            raise Bad(f"a closed life of {self.run_id} still wants something")
        return seen, asked


def replayed(first: c.Leased, journal: list[Entry]) -> Life:
    """A life that has only this journal."""
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    leased = c.Leased(**{**fields, "journal": journal, "seen": journal[-1].seq if journal else 0})
    life = Life(leased, "replay")
    life.turn.begin()
    return life

"""Random batches, pauses, crashes and lost answers, on both stores at once."""

from collections import Counter
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from stepwell.model import commands as c
from tests.properties.moves import NAMES, WRITES, Held, World, move
from tests.properties.pair import Pair

SMALL = st.integers(0, 7)
BATCH = st.lists(st.tuples(st.sampled_from(NAMES), SMALL, SMALL), min_size=1, max_size=8)
WORK = st.lists(
    st.tuples(st.sampled_from([*WRITES, "record", "park", "signal"]), SMALL, st.integers(0, 5)), min_size=1, max_size=8
)
Moves = list[tuple[str, int, int]]


class Machine(RuleBasedStateMachine):
    """One example is one life of a pair of stores."""

    coverage: ClassVar[Counter[str]] = Counter()
    kind: ClassVar[str] = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(self.coverage, self.kind)
        self.world = World(self.pair.clock)

    def _made(self, moves: Moves) -> list[tuple[c.Command, Held | None]]:
        return [move(self.world, *one) for one in moves]

    def _sent(self, made: list[tuple[c.Command, Held | None]]) -> list[Any]:
        replies = self.pair.send(*(command for command, _ in made))
        for (command, held), reply in zip(made, replies, strict=True):
            self.world.learn(command, held, reply)
        self.world.sent = [*self.world.sent, *made][-8:]
        return replies

    @rule(moves=BATCH)
    def batch(self, moves: Moves) -> None:
        self._sent(self._made(moves))

    @rule(moves=WORK)
    def a_worker_works(self, moves: Moves) -> None:
        """Claims what there is and writes, one write after the other, as a worker should."""
        self._sent([move(self.world, "claim", 7, 0)])
        for one in moves:
            self._sent([move(self.world, *one)])

    @rule(moves=BATCH)
    def answers_get_lost_and_all_is_sent_again(self, moves: Moves) -> None:
        made = self._made(moves)
        self.pair.send(*(command for command, _ in made))
        self._sent(made)

    @rule(ms=st.sampled_from((1, 1, 50, 50, 400, 400, 1_500, 4_000, 11_000)))
    def time_passes(self, ms: int) -> None:
        self.pair.clock.tick(ms)

    @rule()
    def the_roles_come_by(self) -> None:
        self.pair.send(c.Fire(), c.Deliver(), c.Promote(), c.Sweep())

    @rule(moves=BATCH, point=st.sampled_from(("begun", "decided", "flushed", "committed")))
    def the_process_dies(self, moves: Moves, point: str) -> None:
        made = self._made(moves)
        self.pair.crash([command for command, _ in made], point)
        self._sent(made)

    @precondition(lambda self: len(self.world.runs) > 4)
    @rule(days=st.integers(1, 2))
    def a_day_passes_and_old_runs_go(self, days: int) -> None:
        self.pair.clock.tick(days * 86_400_000 + 1)
        self.pair.send(c.Sweep(), c.Prune())
        self.pair.send(c.Prune())

    def teardown(self) -> None:
        try:
            if not self.pair.broken:  # else the difference has been told already
                self.pair.compare()
        finally:
            self.pair.close()


class PostgresMachine(Machine):
    """The same lives, with PostgreSQL beside memory."""

    coverage: ClassVar[Counter[str]] = Counter()
    kind: ClassVar[str] = "postgres"

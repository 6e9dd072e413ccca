"""Laws 3, 4, 5, 6 and 10 as properties of their own, where chance picks the moment."""

from concurrent.futures import Future
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from stepwell.kernel.laws import check_run
from stepwell.model import commands as c
from stepwell.model.entries import ENDS, StepCompleted, raw
from stepwell.model.errors import Ended, OutOfStep, Stale, StepwellError, Unavailable
from stepwell.model.rows import Pool
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.properties.moves import NAMES, World, move
from tests.support import Bench, assert_lawful
from tests.support.bench import LEASE_MS
from tests.support.mutations import Scripted

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
#: What each of two workers does next: (worker, number of writes to send at once, pause before).
TURNS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3), st.sampled_from((0, 0, 0, LEASE_MS + 1))), max_size=25)


class Racer:
    """Works on the one run, and believes in its lease until it is told."""

    def __init__(self, name: str, bench: Bench) -> None:
        self.name, self.bench = name, bench
        self.lease: c.Lease | None = None
        self.n, self.seen, self.told = 1, 0, 0

    def claim(self) -> None:
        for task in self.bench.claim(worker=self.name):
            self.lease, self.n, self.seen = task.lease, 1, task.seen

    def writes(self, count: int) -> list[c.Command]:
        """The same write, sent so many times, as after lost answers."""
        if self.lease is None:
            return []
        key = f"{self.name}.{self.lease.epoch}.{self.n}"
        return [c.Record(self.lease, self.n, self.seen, (c.Draft(StepCompleted(raw("1")), key),))] * count

    def hear(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, c.Recorded):
                self.seen = reply.head
            elif isinstance(reply, Stale | Ended):
                self.lease = None
        if self.lease is not None and replies:
            self.n += 1
            self.told += 1


@QUICK
@given(turns=TURNS)
def test_two_workers_racing_for_a_run_never_both_write(turns: list[tuple[int, int, int]]) -> None:
    bench = Bench(MemoryStore())
    bench.start()
    racers = [Racer(name, bench) for name in "ab"]
    told = 0
    for which, count, pause in turns:
        racer = racers[which]
        bench.clock.tick(pause)
        bench.do(c.Sweep())
        bench.do(c.Fire())
        if racer.lease is None:
            racer.claim()
        before = racer.told
        replies = bench.all(*racer.writes(count))
        racer.hear(replies)
        told += racer.told - before
        assert all(plain_answer(reply) == plain_answer(replies[0]) for reply in replies), "a repeat gets the first one"
    entries = bench.journal()
    results = [entry.key for entry in entries if entry.kind == "step.completed"]
    assert len(results) == len(set(results)) == told, "what was told is there, once"
    owner = 0
    for entry in entries:
        owner += entry.kind == "attempt.started"
        if entry.kind == "step.completed":
            assert (entry.key or "").split(".")[1] == str(owner), "each write stands within its own lease"
    assert_lawful(bench.store)


def plain_answer(reply: Any) -> str:
    """An answer without the entries that a repeat brings besides."""
    return repr(structs.replace(reply, own=[]) if isinstance(reply, c.Recorded) else reply)


@settings(QUICK, max_examples=400)
@given(moves=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 7), st.integers(0, 7)), max_size=40))
def test_nobody_is_stranded_and_everything_ends(moves: list[tuple[str, int, int]]) -> None:
    """Whatever happened: with patient workers and operators, each run reaches its end (law 6)."""
    bench = Bench(MemoryStore(), mutations=Scripted(lambda call: (True, call.args)))
    world = World(bench.clock)
    for one in moves:
        command, held = move(world, *one)
        world.learn(command, held, bench.all(command)[0])
    for name in ("p", "default"):
        bench.do(c.SetPool(Pool("main", name)))
    for _ in range(60):
        if not drive(bench):
            break
        bench.clock.tick(LEASE_MS + 1)
    with bench.reader() as reader:
        assert [(run.id, run.status, run.hold) for run in reader.scan_runs() if not run.terminal] == []
    assert_lawful(bench.store)


def drive(bench: Bench) -> bool:
    """What workers and an operator would do; answers whether anything is open."""
    bench.settle()
    with bench.reader() as reader:
        runs = [run for run in reader.scan_runs() if not run.terminal]
    for run in runs:
        if run.hold is not None:
            bench.all(c.ReleaseRun(run.id, scope=run.scope))
        elif run.status in ("waiting", "sleeping"):
            bench.all(c.Signal(run.id, "go", scope=run.scope))
    for task in bench.claim():
        bench.do(c.Finish(task.lease, 1, c.Completed()))
    return bool(runs)


@QUICK
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=6), max_size=8
    ),
    crash=st.integers(0, 8),
)
def test_an_accepted_event_has_its_runs_and_a_refused_one_nothing(
    batches: list[list[tuple[int, int, bool]]], crash: int
) -> None:
    """Law 5, with a process that dies in the middle of one batch."""
    armed = [False]

    def fault(point: str) -> None:
        if armed[0] and point == "flushed":
            raise KeyboardInterrupt

    bench = Bench(MemoryStore(), fault=fault)
    accepted: dict[str, tuple[list[str], str]] = {}
    for number, batch in enumerate(batches):
        commands = [accept(event, matches, "h" if same else "other") for event, matches, same in batch]
        armed[0] = number == crash
        try:
            replies = bench.all(*commands)
        except KeyboardInterrupt:
            bench.lane._session.rollback()
            continue
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, StepwellError):
                assert accepted[command.event.id][1] != command.event.body_hash
                continue
            first = accepted.setdefault(command.event.id, (reply.run_ids, command.event.body_hash))
            assert first == (reply.run_ids, command.event.body_hash), "the same answer each time"
    with bench.reader() as reader:
        assert {event.id for event in reader.scan_events()} == accepted.keys()
        assert {run.id for run in reader.scan_runs()} == {one for runs, _ in accepted.values() for one in runs}
    assert_lawful(bench.store)


def accept(event: int, matches: int, body: str) -> c.AcceptEvent:
    found = tuple(c.Match("f", f"s{i}") for i in range(matches))
    return c.AcceptEvent(c.NewEvent(f"e{event}", "t", "2026", body), found)


@QUICK
@given(bound=st.integers(1, 20), sent=st.integers(0, 30))
def test_a_queue_takes_what_its_bound_says_and_not_one_more(bound: int, sent: int) -> None:
    bench = Bench(MemoryStore(), settings=Settings(queue_commands=bound))
    refused = 0
    for i in range(sent):
        answer: Future[Any] = Future()
        try:
            bench.lane.submit(c.StartRun(f"r{i}", "wf"), answer, None)
        except Unavailable:
            refused += 1
    assert (bench.lane.depth, refused) == (min(bound, sent), max(0, sent - bound))
    bench.lane.submit(c.Sweep(), Future(), None)


@QUICK
@given(st.data())
def test_a_step_has_one_result_and_an_end_is_the_end(data: st.DataObject) -> None:
    """Law 4 and 9: after the end only a restart writes, and what is repeated is not written again."""
    bench = Bench(MemoryStore())
    lease = bench.turn().lease
    numbers = range(1, data.draw(st.integers(1, 6)))
    drafts = {n: (c.Draft(StepCompleted(raw(str(n))), f"s{n}"),) for n in numbers}
    sent: list[c.Command] = [c.Record(lease, n, 100, drafts[n]) for n in numbers]
    sent.append(data.draw(st.sampled_from([c.Finish(lease, len(sent) + 1, c.Completed()), c.Terminate("r")])))
    for command in sent:
        for _ in range(data.draw(st.integers(1, 3))):
            reply = bench.all(command)[0]
            assert not isinstance(reply, StepwellError) or isinstance(reply, Ended)
    ended = bench.journal()
    for command in data.draw(st.permutations([*sent, c.Signal("r", "s"), c.Cancel("r"), c.HoldRun("r"), c.Sweep()])):
        reply = bench.all(command)[0]
        assert isinstance(reply, Ended | OutOfStep | Stale | c.Done | c.Recorded | c.Worked), reply
    assert bench.journal() == ended
    assert [entry.kind in ENDS for entry in ended] == [False] * (len(ended) - 1) + [True]
    results = [entry.key for entry in ended if entry.kind == "step.completed"]
    assert results == [f"s{n}" for n in range(1, len(sent))]
    with bench.reader() as reader:
        found = check_run(bench.run(), ended, reader.tasks_of(1), expects_message=False, settings=Settings())
    assert found == []

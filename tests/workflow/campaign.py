"""Many programs, each with its own chance: what must hold after one, and how a failure is made small and shown."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, cast

from msgspec import Struct, json

from stepwell.model.entries import RunCompleted, RunFailed, StepCompleted, decode_body, text_of
from stepwell.model.rows import Entry
from stepwell.store.port import Store, scan_all
from stepwell.workflow.instance import RETRY
from tests.support import assert_lawful, open_store, plain
from tests.workflow.called import Seen, effect
from tests.workflow.driver import Driver
from tests.workflow.effects import Effects, prepare, tokens
from tests.workflow.lives import ENDS, Bad, Life, replayed
from tests.workflow.player import play
from tests.workflow.programs import Node, changed, operations, program, renamed, size, smaller
from tests.workflow.world import SETTINGS

#: Lives the program of a seed, or the one given; answers the moves it met, and puts the last ones into the list.
Check: TypeAlias = Callable[[int, Node | None, list[str]], Counter[str]]
#: How many prefixes of a journal are replayed.
PREFIXES = 5


class Outcome(Struct):
    """What one program came to: for each run its status, its journal and what it saw."""

    runs: dict[str, Any]
    seen: dict[str, list[Seen]]
    moves: Counter[str]


def program_of(chance: Random) -> Node:
    """The program of a seed."""
    return program(chance, chance.choice([1, 2, 3, 3, 4, 4, 5]))


def large_program(seed: int) -> Node:
    """A program with some hundred operations."""
    chance = Random(f"large program {seed}")
    return program(chance, chance.choice([4, 5, 6]), most=200)


def live(
    seed: int, store: Store, given: Node | None = None, last: "list[str] | None" = None, *, change: str = ""
) -> Outcome:
    """Lives the program of a seed and checks all that must hold. `last` gets the last moves.

    `change`: the code changes on the way, by a step behind a `patch`, or into a `wrong` one, with other names.
    """
    chance = Random(f"program {seed}")
    node = program_of(chance) if given is None else given
    if operations(node) & {"mutation", "bad_mutation"}:
        prepare(store)
    driver = Driver(store, node, f"moves {seed}", Effects())
    try:
        moves = chance.choice([10, 50, 100, 200, 400])
        newer = {"": None, "patch": changed(chance, node), "wrong": renamed(node)}[change]
        driver.live(moves, newer, fits=change != "wrong")
        return _checked(driver, chance)
    finally:
        if last is not None:
            last[:] = driver.log
        driver.close()


def _checked(driver: Driver, chance: Random) -> Outcome:
    assert_lawful(driver.bench.store, SETTINGS)
    with driver.bench.reader() as reader:
        runs = {run.id: run for run in scan_all(reader)}
    journals = {run_id: driver.bench.journal(run_id) for run_id in runs}
    for run_id, journal in journals.items():
        _once(run_id, journal)
        if run_id in driver.told:
            _replays(driver, run_id, journal, chance)
    _effects(driver, journals)
    shown = {run_id: (run.status, plain(journals[run_id])) for run_id, run in runs.items()}
    return Outcome(shown, {run_id: told.seen for run_id, told in driver.told.items()}, driver.counts)


def _once(run_id: str, journal: list[Entry]) -> None:
    """No key ends twice; only a step that is tried again wakes its run each time."""
    ends = Counter(entry.key for entry in journal if entry.kind in ENDS and not (entry.key or "").endswith(RETRY))
    twice = [key for key, count in ends.items() if count > 1]
    if twice:
        raise Bad(f"{twice} of {run_id} ended twice")


def _replays(driver: Driver, run_id: str, journal: list[Entry], chance: Random) -> None:
    """The whole journal, and any beginning of it, give the same story and the same end."""
    first, told = driver.first[run_id], driver.told[run_id]
    whole = replayed(first, journal)
    _same_end(whole, journal)
    story = whole.close()
    told.learn(*story, f"a replay of {run_id}")
    for _ in range(PREFIXES):
        part = replayed(first, journal[: chance.randint(driver.older if run_id == "r" else 0, len(journal))])
        told.learn(*part.close(), f"a replay of the beginning of {run_id}")
    if len(told.seen) != len(story[0]):
        raise Bad(f"a life of {run_id} saw more than the journal tells: {told.seen[len(story[0]) :]}")


def _same_end(life: Life, journal: list[Entry]) -> None:
    root, last = life.turn.instance.root, decode_body(journal[-1].kind, journal[-1].data)
    if life.turn.instance.mismatch is not None:
        raise Bad(f"a replay does not fit: {life.turn.instance.mismatch}")
    if isinstance(last, RunCompleted):
        result = play.signature.encode_result(root.result()) if _ended_well(root) else f"{root!r}"
        if result != text_of(last.result):
            raise Bad(f"a replay ends with {result}, the run with {text_of(last.result)}")
    elif isinstance(last, RunFailed) and journal[-1].n and _ended_well(root):
        raise Bad(f"a replay ends well, the run with {text_of(last.error)}")


def _ended_well(root: "asyncio.Task[Any]") -> bool:
    return root.done() and not root.cancelled() and root.exception() is None


def _effects(driver: Driver, journals: dict[str, list[Entry]]) -> None:
    """Each mutation that is recorded happened once, and no other did."""
    recorded = [
        json.decode(text_of(cast("StepCompleted", decode_body(entry.kind, entry.data)).result) or "")
        for journal in journals.values()
        for entry in journal
        if entry.kind == "step.completed" and f"{effect.path}#" in (entry.key or "")
    ]
    if not operations(driver.program) & {"mutation", "bad_mutation"}:
        return
    with driver.bench.reader() as reader:
        happened = tokens(reader)
    if sorted(recorded) != sorted(happened) or len(set(happened)) != len(happened):
        raise Bad(f"mutations recorded {sorted(recorded)}, happened {sorted(happened)}")


class Failure(Exception):
    """A program that went wrong, made small."""


def campaign(seeds: Iterable[int], check: Check) -> Counter[str]:
    """Checks each seed; a failure is made small and told with all that is needed to see it again."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        last: list[str] = []
        try:
            counts += check(seed, None, last)
        except Exception as error:
            raise Failure(_story(seed, error, last, check)) from error
    return counts


def _story(seed: int, error: Exception, last: list[str], check: Callable[[int, Node | None, list[str]], Any]) -> str:
    chance = Random(f"program {seed}")
    node = program_of(chance)  # the check may have taken a larger one: the smallest is what counts
    small, small_seed, why, moves = _shrunk(seed, node, error, last, check)
    return "\n".join(
        [
            f"seed {seed}: {error}",
            f"its program: {node!r}",
            f"the smallest that fails, with seed {small_seed}: {small!r}",
            f"because {why}",
            "the last moves of that one:",
            *moves,
        ]
    )


def _shrunk(
    seed: int, node: Node, error: Exception, last: list[str], check: Callable[[int, Node | None, list[str]], Any]
) -> tuple[Node, int, Exception, list[str]]:
    """The smallest program found that fails, too, with this or a near seed."""
    found, tries = (node, seed, error, list(last)), 600
    shrinking = True
    while shrinking and tries > 0:
        shrinking = False
        for less in smaller(found[0]):
            for near in (seed, *range(10)):
                tries -= 1
                moves: list[str] = []
                try:
                    check(near, less, moves)
                except Exception as again:
                    found, shrinking = (less, near, again, moves), True
                    break
            if shrinking or tries <= 0:
                break
    return found


def on_memory(seed: int, node: Node | None, last: list[str]) -> Counter[str]:
    """One program on the memory store."""
    store = open_store("memory", Path())
    with closing(store):
        return live(seed, store, node, last).moves


def on_change(seed: int, node: Node | None, last: list[str]) -> Counter[str]:
    """One program whose code changes on the way."""
    with closing(open_store("memory", Path())) as store:
        return live(seed, store, node, last, change="patch").moves


def on_wrong_code(seed: int, node: Node | None, last: list[str]) -> Counter[str]:
    """One program whose code changes on the way into one that does not fit; if that is seen, it is taken back."""
    with closing(open_store("memory", Path())) as store:
        return live(seed, store, node, last, change="wrong").moves


def on_two(kind: str, seed: int, node: Node | None, last: list[str]) -> Counter[str]:
    """One program on two stores, memory and another one, which must come to the same."""
    with TemporaryDirectory() as folder:
        memory, durable = open_store("memory", Path()), open_store(kind, Path(folder))
        with closing(memory), closing(durable):
            one, other = live(seed, memory, node, last), live(seed, durable, node, last)
    if (one.runs, one.seen) != (other.runs, other.seen):
        raise Bad(f"memory and {kind} differ: {_difference(one, other)}")
    return one.moves


def _difference(one: Outcome, other: Outcome) -> str:
    for run_id in {**one.runs, **other.runs}:
        for mine, theirs in ((one.runs, other.runs), (one.seen, other.seen)):
            if mine.get(run_id) != theirs.get(run_id):
                return f"{run_id}:\n  {mine.get(run_id)}\n  {theirs.get(run_id)}"
    return "in the order of the runs"


__all__ = ["Failure", "campaign", "live", "on_memory", "on_two", "size"]

"""A start that replaces: what a run is given may change, what it is may not."""

from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful

RUN: dict[str, Any] = {
    "name": "alpha",
    "version": "1",
    "pool": "p",
    "pool_key": "k",
    "priority": 3,
    "tags": '{"a":1}',
    "requires": "workflow:alpha",
}


@pytest.mark.parametrize(
    "other",
    [
        {"name": "beta"},
        {"version": "2"},
        {"pool": "q"},
        {"pool_key": "l"},
        {"pool_key": None},
        {"priority": 4},
        {"tags": '{"a":2}'},
        {"tags": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_what_a_run_is_cannot_be_replaced(bench: Bench, other: dict[str, Any], ended: bool) -> None:
    bench.start(**RUN)
    if ended:
        bench.do(c.Terminate("r"))
    before = bench.journal()
    refusal = bench.refused(c.StartRun("r", **{**RUN, **other}, input="2", reuse="replace"), errors.Conflict)
    assert "another id" in refusal.hint
    assert bench.journal() == before


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_input_deadline_and_time_are_the_new_ones(bench: Bench, ended: bool) -> None:
    bench.start(**RUN, input="1", deadline=bench.clock.now + 1_000)
    if ended:
        bench.do(c.Terminate("r"))
    later = bench.clock.now + 50_000
    bench.start(**RUN, input="2", reuse="replace", deadline=later + 5, due_at=later)
    run, task = bench.run(), bench.task()
    assert (run.input, run.deadline, run.generation) == ("2", later + 5, 2)
    assert (task.state, task.due_at, task.requires) == ("due", later, "workflow:alpha")
    assert bench.claim() == []
    bench.clock.now = later
    bench.settle()
    (held,) = bench.claim()
    assert held.input == "2"
    bench.clock.tick(5)
    bench.settle()
    assert bench.run().status == "failed"


def test_a_deadline_that_is_not_given_again_is_gone(bench: Bench) -> None:
    bench.start(**RUN, deadline=bench.clock.now + 1_000)
    bench.start(**RUN, reuse="replace")
    assert bench.run().deadline is None


def test_replacing_again_and_again_ends_at_the_bound_of_the_journal() -> None:
    bench = Bench(MemoryStore(), settings=Settings(journal_entries=100))
    bench.start()
    replies = [bench.all(c.StartRun("r", "wf", reuse="replace"))[0] for _ in range(100)]
    assert type(replies[-1]) is errors.TooLarge
    assert bench.run().head_seq <= 100
    assert_lawful(bench.store, bench.settings)

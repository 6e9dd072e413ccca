"""Random programs with random moves around them: every life of a run sees the same, and each step is recorded once.

2,000 programs; `make soak` goes on. A failure names its seed and a smaller program that fails, too.
"""

from collections import Counter
from functools import partial

import pytest

from tests.support import on_postgres
from tests.workflow.campaign import campaign, on_change, on_memory, on_two, on_wrong_code
from tests.workflow.driver import MOVES

CHUNK = 100
#: What the kernel refuses now and then.
REFUSED = {"Unseen", "Stale", "Ended", "Outdated", "TooLarge"}


@pytest.mark.parametrize("first", range(200, 1_500, CHUNK))
def test_lives_of_a_run_are_one_story(first: int) -> None:
    counts = campaign(range(first, first + CHUNK), on_memory)
    assert counts["crash"] > CHUNK // 4


def test_every_move_and_every_refusal_is_met() -> None:
    counts = campaign(range(200), on_memory)
    missing = {*MOVES, *REFUSED} - set(counts)
    assert not missing


@pytest.mark.parametrize("first", [1_500, 1_600])
def test_code_may_change_behind_a_patch(first: int) -> None:
    campaign(range(first, first + CHUNK), on_change)


@pytest.mark.parametrize("first", [1_700, 1_800])
def test_wrong_code_holds_a_run_until_it_is_taken_back(first: int) -> None:
    counts = campaign(range(first, first + CHUNK), on_wrong_code)
    assert counts["taken back"] > CHUNK // 20


@pytest.mark.parametrize("first", range(1_900, 2_000, CHUNK // 4))
def test_stories_are_the_same_in_a_file(first: int) -> None:
    campaign(range(first, first + CHUNK // 4), partial(on_two, "sqlite"))


@pytest.mark.parametrize("first", range(1_900, 2_000, CHUNK // 4))
def test_stories_are_the_same_on_postgres(first: int) -> None:
    """One in five of the above, since each takes as long as ten in memory; all of them where the suites run on it."""
    campaign(range(first, first + CHUNK // 4, 1 if on_postgres() else 5), partial(on_two, "postgres"))


def test_more_steps_at_once_than_one_write_holds() -> None:
    def wide(seed: int, node: object, last: list[str]) -> Counter[str]:
        return on_memory(seed, ["wide", [["step", "s1"], ["late", "s2", 1]]], last)

    campaign(range(6), wide)

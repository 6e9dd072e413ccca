"""Random programs with random moves around them: every life of a run sees the same, and each step is recorded once.

2,000 programs; `make soak` goes on. A failure names its seed and a smaller program that fails, too.
"""

import pytest

from tests.workflow.campaign import campaign, on_both, on_change, on_memory

CHUNK = 100


@pytest.mark.parametrize("first", range(0, 1_500, CHUNK))
def test_lives_of_a_run_are_one_story(first: int) -> None:
    counts = campaign(range(first, first + CHUNK), on_memory)
    assert counts["crash"] > CHUNK // 4


@pytest.mark.parametrize("first", range(1_500, 1_800, CHUNK))
def test_code_may_change_behind_a_patch(first: int) -> None:
    campaign(range(first, first + CHUNK), on_change)


@pytest.mark.parametrize("first", range(1_800, 2_000, CHUNK // 2))
def test_stories_are_the_same_on_both_stores(first: int) -> None:
    campaign(range(first, first + CHUNK // 2), on_both)

"""Random programs with random moves around them: every life of a run sees the same, and each step is recorded once.

2,000 programs; `make soak` goes on. A failure names its seed: `on_memory(SEED, None, [])` shows it again.
"""

import pytest

from tests.workflow.campaign import campaign, on_both, on_memory

CHUNK = 100


@pytest.mark.parametrize("first", range(0, 1_600, CHUNK))
def test_lives_of_a_run_are_one_story(first: int) -> None:
    counts = campaign(range(first, first + CHUNK), on_memory)
    assert counts["crash"] > CHUNK // 2


@pytest.mark.parametrize("first", range(1_600, 2_000, 50))
def test_stories_are_the_same_on_both_stores(first: int) -> None:
    campaign(range(first, first + 50), on_both)

"""Random programs that failed once, by their seeds."""

import pytest

from tests.soak.test_replay import checked


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1_040_130_734_988, id="an-entry-between-the-end-of-a-body-and-its-commit-wakes-nobody"),
        pytest.param(773_817_111_136, id="a-deadline-before-the-retry-is-written-ends-the-step-for-good"),
    ],
)
def test_what_failed_once(seed: int) -> None:
    checked(seed, None, [])

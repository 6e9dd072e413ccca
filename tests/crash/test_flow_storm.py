"""Server, worker and step are killed in turn, at random, while flows run with retries.

Each acknowledged event's run ends once, attempts are what the steps themselves wrote down, no two attempts of a run
live at once, nobody is left behind, and the doctor finds nothing. The soak has the same with 500 events.
"""

from pathlib import Path

import pytest

from tests.crash.flow_judge import run_storm
from tests.crash.flow_storm import FEW, Plan


@pytest.mark.timeout(180)
def test_whoever_is_killed_each_run_ends_once_and_attempts_tell_the_truth(tmp_path: Path) -> None:
    """The limit is wide for a busy machine; it takes 20 s, 10 of them the lease of those who died last."""
    report = run_storm(tmp_path, Plan(seed=1, events=60, post_s=7, kill_s=10, limit_s=150))
    assert all(report.kills[kind] >= FEW for kind in ("server", "worker", "step"))
    assert report.attempts["expired"] > 0, "no worker died with a lease"

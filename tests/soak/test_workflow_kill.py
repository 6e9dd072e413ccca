"""Workflow storms of 100 voyages and 200 kills each, with seeds from SOAK_SEED on.

They go on for SOAK_SECONDS; one there is in any case (source: spec orchestrator E.8 no. 140).
"""

from pathlib import Path

import pytest

from tests.crash.workflow_judge import run_storm
from tests.crash.workflow_storm import Plan
from tests.support.soak import rounds

#: How long a storm takes; no other is begun when less is left.
STORM_S = 120


@pytest.mark.soak
def test_storms_of_100_workflows_and_200_kills(tmp_path: Path) -> None:
    for seed in rounds(each_s=STORM_S):
        folder = tmp_path / str(seed)
        folder.mkdir()
        report = run_storm(folder, Plan(seed, voyages=100, kills=200, limit_s=170))
        assert report.kills["worker"] + report.kills["server"] == 200
        assert report.attempts["turn expired"] >= 50, "too few kills met a workflow"
        assert report.attempts["action expired"] >= 10, "too few kills met an action"

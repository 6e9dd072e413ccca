"""Flow storms of 500 events each, with seeds from SOAK_SEED on and with and without slots in the server.

They go on for SOAK_SECONDS; one there is in any case.
"""

from pathlib import Path

import pytest

from tests.crash.flow_judge import run_storm
from tests.crash.flow_storm import Plan
from tests.support.soak import rounds

#: How long a storm takes; no other is begun when less is left.
STORM_S = 100


@pytest.mark.soak
def test_storms_of_500_flow_runs(tmp_path: Path) -> None:
    for seed in rounds(each_s=STORM_S):
        folder = tmp_path / str(seed)
        folder.mkdir()
        plan = Plan(seed, events=500, post_s=55, kill_s=60, limit_s=170, server_slots=2 * (seed % 2))
        report = run_storm(folder, plan)
        assert all(report.kills[kind] >= 30 for kind in ("server", "worker", "step"))

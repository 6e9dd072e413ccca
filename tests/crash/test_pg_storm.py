"""Three servers and six workers on one PostgreSQL, killed or stopped at random, and the database itself twice.

Each acknowledged run ends once, each mutation's row is there once, actions keep within their attempts, the doctor finds
nothing, and the database's log has no deadlock and no error that is not expected. The soak has it with 5,000 + 5,000.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.crash.pg_judge import run_storm
from tests.crash.pg_storm import Plan

PLAN = Plan(seed=1, events=60, voyages=15, ferries=8, send_s=7, kill_s=9, limit_s=100)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_whoever_is_killed_and_the_database_too_each_run_ends_once(tmp_path: Path, pooled: bool) -> None:
    """The limits are wide for a busy machine; it takes 20 s. `pooled`: behind pgbouncer in transaction mode."""
    report = run_storm(tmp_path, replace(PLAN, pooled=pooled))
    assert report.restarts == 2
    assert sum(report.kills.values()) >= 6

"""Three servers and six workers on one PostgreSQL, killed or stopped at random, and the database itself twice.

Each acknowledged run ends once, each mutation's row is there once, actions keep within their attempts, the doctor finds
nothing, and the database's log has no deadlock and no error that is not expected. The soak has it with 5,000 + 5,000.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.crash.pg_judge import check_log, run_storm
from tests.crash.pg_storm import Plan

PLAN = Plan(seed=1, events=60, voyages=15, ferries=8, send_s=7, kill_s=9, limit_s=100)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_whoever_is_killed_and_the_database_too_each_run_ends_once(tmp_path: Path, pooled: bool) -> None:
    """The limits are wide for a busy machine; it takes 20 s. `pooled`: behind pgbouncer in transaction mode."""
    report = run_storm(tmp_path, replace(PLAN, pooled=pooled))
    assert report.restarts == 2
    assert sum(report.kills.values()) >= 6


def test_a_log_with_a_deadlock_or_an_error_that_nobody_expects_is_no_good_log() -> None:
    good = """
    2026-11-21 20:12:40.092 UTC [1] LOG:  starting PostgreSQL 18.4
    2026-11-21 20:12:41.092 UTC [2] FATAL:  the database system is starting up
    2026-11-21 20:12:42.092 UTC [3] ERROR:  duplicate key value violates unique constraint "run_id"
    """
    check_log(good)
    for line in ("ERROR:  deadlock detected", "ERROR:  canceling statement due to statement timeout", "PANIC:  disk"):
        with pytest.raises(AssertionError, match=line.partition("  ")[2]):
            check_log(f"{good}\n2026-11-21 20:12:43.092 UTC [4] {line}\n")

"""The storm on PostgreSQL with 5,000 flow runs and 5,000 workflows, direct and behind a pooler; 2,000 children.

A storm that SOAK_SECONDS is too short for is as much smaller. SOAK_SEED is its seed.
"""

from pathlib import Path

import pytest

from tests.crash.pg_judge import run_storm
from tests.crash.pg_storm import Plan
from tests.crash.test_pg_family import raise_family
from tests.support.soak import first_seed, soak_s

FLOW_RUNS, WORKFLOWS = 5_000, 5_000
#: What all of it takes on two cores.
FULL_S = 1_000
#: Of that time, so much is for those who died last, and what is left of the work.
CALM = 0.4
#: More of what is quick: a storm of so many is about the store, not about shells.
KINDS = {"quick": 30, "flaky": 5, "chain": 3, "sleepy": 2, "family": 1, "doomed": 2, "stubborn": 1}


@pytest.mark.soak
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_a_storm_of_5_000_flow_runs_and_5_000_workflows(tmp_path: Path, pooled: bool) -> None:
    share = min(1.0, soak_s() / FULL_S)
    send_s = share * FULL_S * (1 - CALM)
    plan = Plan(
        first_seed(),
        events=int(FLOW_RUNS * share),
        voyages=int(WORKFLOWS / 4 * share),  # each with a boat and a log book
        ferries=int(WORKFLOWS / 8 * share),  # each with a tug
        send_s=send_s,
        kill_s=send_s,
        limit_s=soak_s() + 100,
        kinds=KINDS,
        pooled=pooled,
    )
    report = run_storm(tmp_path, plan)
    assert report.restarts == 2
    assert sum(report.kills.values()) >= send_s / 3


@pytest.mark.soak
def test_a_parent_of_2_000_children(tmp_path: Path) -> None:
    """It takes 10 s; its bound is a small part of what one after the other would be."""
    raised = raise_family(tmp_path, 2_000, 100)
    assert raised.leases < 50
    assert raised.batches < 500

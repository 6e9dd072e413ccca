"""Workers are killed at random moments, and at every point of every commit, while workflows run.

Each run comes to the end of one that nobody disturbed: each mutation's row is there once, each action began at least
once and within its attempts, no recorded step ran again, the laws hold and nobody is left behind. The soak has the same
with 100 workflows and 200 kills (source: spec orchestrator E.8 no. 140).
"""

import signal
from itertools import count
from pathlib import Path

import msgspec
import pytest

from stepwell.model.settings import Settings
from tests.crash.workflow_judge import judge_all, run_storm, sea_of
from tests.crash.workflow_lives import AHEAD_MS, Lives
from tests.crash.workflow_storm import Plan, Report
from tests.support import durable, offences

#: More commits than an errand of 10 steps can need.
MANY = 200


@pytest.mark.timeout(110)
def test_whoever_is_killed_each_workflow_ends_with_its_effects_once(tmp_path: Path) -> None:
    """The limit is wide for a busy machine; it takes 11 s."""
    report = run_storm(tmp_path, Plan(seed=1, voyages=16, kills=16, limit_s=90))
    assert report.kills["worker"] + report.kills["server"] == 16
    assert report.attempts["turn expired"] > 0, "no kill met a workflow"


@pytest.mark.stores("sqlite", "postgres")
@pytest.mark.parametrize("point", ["begun", "decided", "flushed", "committed", "answering"])
def test_a_kill_at_each_point_of_each_commit_of_a_workflow(point: str, tmp_path: Path) -> None:
    """The first life is killed at the first, second, third ... time that it comes to the point; the next one ends."""
    with Lives() as lives:
        for left in count(1):
            assert left < MANY
            path, log = tmp_path / f"{left}.sqlite", tmp_path / f"{left}.log"
            status = lives.live(path, log, point, left)
            if status != 0:
                assert status == -signal.SIGKILL
                assert lives.live(path, log, ahead_ms=AHEAD_MS) == 0
            check_errand(path, log)
            if status == 0:
                break
    assert left > 15, "an errand has more commits than that"


def check_errand(path: Path, log: Path) -> None:
    """It has its result, and its effects once."""
    sea = sea_of(path, log)
    assert set(sea.told) == {"errand"}
    judge_all(sea, Report())
    errand = sea.told["errand"]
    assert msgspec.json.decode(errand.run.result or "") == {
        "token": errand.result("token"),
        "bread": "bread traded",
        "begin": "begin stowed",
        "watch": "watch watched",
        "milk": "milk weighed",
        "road": "clear",
        "order": "bread and milk",
        "end": "end stowed",
    }
    assert offences(durable(path), Settings(lost_leases=1_000)) == []

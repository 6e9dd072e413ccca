"""Memory is the oracle: SQLite gives every answer that it gives, and shows every row that it shows."""

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from stepwell.kernel.decide import RULES
from tests.properties import certain
from tests.properties.machine import Machine

COMMANDS = {kind.__name__ for kind in RULES}
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def lives(count: int, steps: int, *, derandomize: bool) -> None:
    """So many lives of so many steps each."""
    profile = settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        derandomize=derandomize,
        database=None,
        print_blob=True,
        suppress_health_check=CHECKS,
        phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
    )
    run_state_machine_as_test(Machine, settings=profile)


def assert_covered() -> None:
    succeeded = COMMANDS & Machine.coverage.keys()
    assert succeeded == COMMANDS, f"never succeeded: {sorted(COMMANDS - succeeded)}"
    refused = {name.split()[1] for name in Machine.coverage if " " in name}
    wanted = {"stale", "ended", "unseen", "out_of_step", "conflict", "exists", "outdated", "open", "unknown", "invalid"}
    assert wanted <= refused, f"never refused with: {sorted(wanted - refused)}"


def test_memory_and_sqlite_agree_on_everything() -> None:
    Machine.coverage.clear()
    certain.live(Machine.coverage)
    lives(30, 40, derandomize=True)
    assert_covered()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_memory_and_sqlite_agree_for_a_long_time() -> None:
    certain.live(Machine.coverage)
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    while time.monotonic() < until:
        lives(100, 60, derandomize=False)
    assert_covered()

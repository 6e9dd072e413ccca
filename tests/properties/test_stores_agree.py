"""Memory is the oracle: SQLite and PostgreSQL give every answer that it gives, and show every row that it shows."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from stepwell.kernel.decide import RULES
from tests.properties import certain
from tests.properties.machine import Machine, PostgresMachine
from tests.support.soak import rounds

COMMANDS = {kind.__name__ for kind in RULES}
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def lives(machine: type[Machine], count: int, steps: int, *, derandomize: bool) -> None:
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
    run_state_machine_as_test(machine, settings=profile)


def assert_covered(machine: type[Machine]) -> None:
    succeeded = COMMANDS & machine.coverage.keys()
    assert succeeded == COMMANDS, f"never succeeded: {sorted(COMMANDS - succeeded)}"
    refused = {name.split()[1] for name in machine.coverage if " " in name}
    wanted = {"stale", "ended", "unseen", "out_of_step", "conflict", "exists", "outdated", "open", "unknown", "invalid"}
    assert wanted <= refused, f"never refused with: {sorted(wanted - refused)}"


def test_memory_and_sqlite_agree_on_everything() -> None:
    Machine.coverage.clear()
    certain.live(Machine.coverage)
    lives(Machine, 30, 40, derandomize=True)
    assert_covered(Machine)


def test_memory_and_postgres_agree() -> None:
    """Fewer lives, as each takes a second: that they come to everything is asked of SQLite above, and in the soak."""
    certain.live(PostgresMachine.coverage, PostgresMachine.kind)
    lives(PostgresMachine, 10, 40, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", [Machine, PostgresMachine])
def test_memory_agrees_with_another_for_a_long_time(machine: type[Machine]) -> None:
    certain.live(machine.coverage, machine.kind)
    for _ in rounds(share=1 / 2):
        lives(machine, 100, 60, derandomize=False)
    assert_covered(machine)

"""Ten thousand commands of eight processes on one file, while they are killed at random.

Journals are dense, no step is recorded twice, what was acknowledged is there once and where the answer said, what was
not answered is there at most once; the doctor finds nothing, and every open run can be finished.
"""

from pathlib import Path

import pytest

from tests.crash.weather import weather
from tests.support import on_postgres


@pytest.mark.stores("sqlite", "postgres")
def test_thousands_of_commands_of_eight_processes_that_get_killed(tmp_path: Path) -> None:
    """Fewer on PostgreSQL: its server shares the cores with those who ask it."""
    report = weather(tmp_path, "storm", commands=5_000 if on_postgres() else 10_000, every_s=0.25, limit_s=60)
    assert report.kills >= 8
    assert report.unanswered > 0, "no kill met a command that was under way"

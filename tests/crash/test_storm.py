"""Ten thousand commands of eight processes on one file, while they are killed at random.

Journals are dense, no step is recorded twice, what was acknowledged is there once and where the answer said, what was
not answered is there at most once; the doctor finds nothing, and every open run can be finished.
"""

from pathlib import Path

from tests.crash.weather import weather


def test_ten_thousand_commands_of_eight_processes_that_get_killed(tmp_path: Path) -> None:
    report = weather(tmp_path, "storm", commands=10_000, every_s=0.25, limit_s=60)
    assert report.kills >= 8
    assert report.unanswered > 0, "no kill met a command that was under way"

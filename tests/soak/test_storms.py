"""Storm after storm on one file that grows, for SOAK_SECONDS."""

from pathlib import Path

import pytest

from tests.crash.weather import weather
from tests.support.soak import rounds

COMMANDS = 40_000


@pytest.mark.soak
def test_storms_on_one_file(tmp_path: Path) -> None:
    for number in rounds():
        report = weather(tmp_path, f"storm{number}", commands=COMMANDS, every_s=0.5, freeze_s=2.5, limit_s=300)
        assert report.kills > 0

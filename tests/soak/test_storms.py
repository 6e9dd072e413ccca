"""Storm after storm on one file that grows, for SOAK_SECONDS."""

import os
import time
from pathlib import Path

import pytest

from tests.crash.weather import weather

COMMANDS = 40_000


@pytest.mark.soak
def test_storms_on_one_file(tmp_path: Path) -> None:
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    number = 0
    while number == 0 or time.monotonic() < until:
        number += 1
        report = weather(tmp_path, f"storm{number}", commands=COMMANDS, every_s=0.5, freeze_s=2.5, limit_s=300)
        assert report.kills > 0

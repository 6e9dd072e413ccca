"""Random programs, larger ones and on both stores, until the time is over. A failure names its seed."""

import os
import time
from itertools import count, takewhile
from random import SystemRandom

import pytest

from tests.workflow.campaign import campaign, on_both

pytestmark = pytest.mark.soak
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))


def test_programs_without_end() -> None:
    first, until = SystemRandom().randrange(1 << 40), time.monotonic() + SECONDS
    counts = campaign(takewhile(lambda _: time.monotonic() < until, count(first)), on_both)
    assert counts["crash"]

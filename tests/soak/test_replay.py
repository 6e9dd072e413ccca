"""Random programs, larger than those of every day, until the time is over. A failure names its seed."""

import time
from collections import Counter
from functools import partial
from itertools import count, takewhile
from random import SystemRandom

import pytest

from tests.support.soak import soak_s
from tests.workflow import campaign as c
from tests.workflow.programs import Node

pytestmark = pytest.mark.soak
CHECKS: tuple[c.Check, ...] = (
    c.on_memory,
    partial(c.on_two, "sqlite"),
    partial(c.on_two, "postgres"),
    c.on_change,
    c.on_wrong_code,
)


def checked(seed: int, node: Node | None, last: list[str]) -> Counter[str]:
    """One program, large or not, in one of the ways."""
    return CHECKS[seed % len(CHECKS)](seed, c.large_program(seed) if node is None and seed % 3 else node, last)


def test_programs_without_end() -> None:
    first, until = SystemRandom().randrange(1 << 40), time.monotonic() + soak_s()
    counts = c.campaign(takewhile(lambda _: time.monotonic() < until, count(first)), checked)
    assert counts["crash"]

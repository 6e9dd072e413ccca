"""How long a soak lasts, and with which seeds: SOAK_SECONDS, and from SOAK_SEED on."""

import os
import time
from collections.abc import Iterator
from itertools import count


def soak_s() -> float:
    return float(os.environ.get("SOAK_SECONDS", "600"))


def first_seed() -> int:
    return int(os.environ.get("SOAK_SEED", "1"))


def rounds(*, share: float = 1.0, each_s: float = 0.0, at_least: int = 1) -> Iterator[int]:
    """A seed for each round, for this share of the soak. None is begun in its last `each_s`, but so many there are."""
    first, until = first_seed(), time.monotonic() + soak_s() * share
    for seed in count(first):
        if seed >= first + at_least and time.monotonic() + each_s > until:
            return
        yield seed

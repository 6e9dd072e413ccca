"""Random bytes to every route, for SOAK_SECONDS: no 500, no hang, no growth."""

import os
import time
from pathlib import Path

import pytest

from stepwell.model.settings import MIB
from tests.server.fuzz import fuzz, requests, resident_bytes
from tests.server.support import lawful, serving

ROUND = 2_000


@pytest.mark.soak
@pytest.mark.parametrize("secret", [None, "a secret"])
def test_random_bytes_for_long(tmp_path: Path, secret: str | None) -> None:
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600")) / 2
    options = {"head_s": 0.1, "body_s": 0.1, **({"secrets": [secret]} if secret else {})}
    with serving(tmp_path, options=options, slots=0) as server:
        fuzz(server, requests(0, ROUND, secret), secured=secret is not None)
        before, seed = resident_bytes(server), 0
        while seed == 0 or time.monotonic() < until:
            seed += 1
            fuzz(server, requests(seed, ROUND, secret), secured=secret is not None)
            assert resident_bytes(server) - before < 32 * MIB, seed
    lawful(tmp_path)

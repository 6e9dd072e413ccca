"""Random bytes to every route, for SOAK_SECONDS: no 500, no hang, no growth."""

from pathlib import Path

import pytest

from stepwell.model.settings import MIB
from tests.server.fuzz import fuzz, requests, resident_bytes
from tests.server.support import lawful, serving
from tests.support.soak import rounds

ROUND = 2_000


@pytest.mark.soak
@pytest.mark.parametrize("secret", [None, "a secret"])
def test_random_bytes_for_long(tmp_path: Path, secret: str | None) -> None:
    options = {"head_s": 0.1, "body_s": 0.1, **({"secrets": [secret]} if secret else {})}
    with serving(tmp_path, options=options, slots=0) as server:
        fuzz(server, requests(0, ROUND, secret), secured=secret is not None)
        before = resident_bytes(server)
        for seed in rounds(share=1 / 2):
            fuzz(server, requests(seed, ROUND, secret), secured=secret is not None)
            assert resident_bytes(server) - before < 32 * MIB, seed
    lawful(tmp_path)

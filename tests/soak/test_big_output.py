"""Steps that print a gigabyte: the worker's memory stays flat, its loop goes on, and the run ends as it should."""

from pathlib import Path

import pytest

from stepwell.model.settings import Settings
from tests.flows.flood import SHAPES, flood

SIZE = 1_000_000_000


@pytest.mark.soak
@pytest.mark.parametrize("worker", [False, True], ids=["step", "worker"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gigabyte(tmp_path: Path, shape: str, worker: bool) -> None:
    found = flood(tmp_path, shape, SIZE, worker=worker)
    assert (found.status, found.error) == ((None, "too_large") if shape == "one line" else ("completed", None))
    assert found.grown_kib < (100_000 if worker else 20_000)  # a worker holds what a run may say, until it is stored
    if worker:
        assert found.seen <= Settings().output_bytes + 100_000
    else:
        assert found.seen >= SIZE // 2

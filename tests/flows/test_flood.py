from pathlib import Path

import pytest

from .flood import SHAPES, flood

SIZE = 200_000_000


@pytest.mark.parametrize("shape", SHAPES)
def test_memory_stays_flat_whatever_is_printed(tmp_path: Path, shape: str) -> None:
    """Fault 16. A tenth of the size would show already if it were kept."""
    found = flood(tmp_path, shape, SIZE)
    assert found.seen >= SIZE if shape != "invalid UTF-8" else found.seen >= SIZE // 2
    assert (found.status, found.error) == ((None, "too_large") if shape == "one line" else ("completed", None))
    assert found.grown_kib < 20_000

"""Places: in memory with runs that stay, in a file with runs that leave the memory at each wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance_workflow.support import PARKING, RESIDENT, Place
from tests.support import durable_url


@pytest.fixture(params=["live", "replayed"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Both: what a run sees live, and what it sees in a replay, must be the same."""
    url, settings = ("memory:", RESIDENT) if request.param == "live" else (durable_url(tmp_path / "t.db"), PARKING)
    place = Place(url, settings, monkeypatch)
    yield place
    place.lawful()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """One that outlives its process: in a file, with runs that leave the memory at each wait."""
    place = Place(durable_url(tmp_path / "t.db"), PARKING, monkeypatch)
    yield place
    place.lawful()

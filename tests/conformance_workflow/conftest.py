"""Places: in memory with runs that stay, in a file or on PostgreSQL with runs that leave the memory at each wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance_workflow.support import PARKING, RESIDENT, Place
from tests.support import durable_url, on_postgres
from tests.support.stores import CHOICE


@pytest.fixture(params=["live", "replayed"] if on_postgres() else ["live", "replayed", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """All: what a run sees live, and what it sees in a replay, must be the same. `live` is in memory if it may be."""
    if request.param == "postgres":
        monkeypatch.setenv(CHOICE, request.param)
    live = request.param == "live"
    url = "memory:" if live and not on_postgres() else durable_url(tmp_path / "t.db")
    place = Place(url, RESIDENT if live else PARKING, monkeypatch)
    yield place
    place.lawful()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """One that outlives its process: its runs leave the memory at each wait."""
    place = Place(durable_url(tmp_path / "t.db"), PARKING, monkeypatch)
    yield place
    place.lawful()

"""Programs that give no settings have those of the environment, as the command line has (source: docs/settings.md)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell import Invalid, Stepwell, Worker, blocking
from stepwell.client import open_flow_client
from stepwell.model.settings import Settings
from tests.client.shop import app

MAKERS: dict[str, Callable[[], object]] = {
    "Stepwell": lambda: Stepwell("memory:", app),
    "blocking": lambda: blocking.Stepwell("memory:", app),
    "Worker": lambda: Worker(app, "memory:"),
}


def test_a_wrong_variable_is_an_error_of_the_embedded_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_POLL_MS", "0")

    async def main() -> None:
        async with open_flow_client(tmp_path):
            pass

    with pytest.raises(Invalid, match="poll_ms must be"):
        asyncio.run(main())


@pytest.mark.parametrize("maker", MAKERS)
def test_a_wrong_variable_is_an_error_when_the_program_starts(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_LINGER_MS", "soon")
    with pytest.raises(Invalid, match="STEPWELL_LINGER_MS"):
        MAKERS[maker]()


def test_settings_that_are_given_are_all_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is to be the default, too."""
    monkeypatch.setenv("STEPWELL_LOST_LEASES", "1")

    async def found(settings: Settings | None) -> int:
        async with Stepwell("memory:", app, settings=settings) as sw:
            return sw._connection.engine.settings.lost_leases

    assert asyncio.run(found(None)) == 1
    assert asyncio.run(found(Settings())) == 5

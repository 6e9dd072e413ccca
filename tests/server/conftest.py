"""One server for all tests of a module that only talk to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.support import OK, Server, flow, lawful, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a flow `demo` of two steps for events of type demo, and a worker."""
    cwd: Path = tmp_path_factory.mktemp("server")
    flow(cwd, "demo", {"one": "echo hello; " + OK, "two": OK})
    with serving(cwd) as running:
        yield running
    lawful(cwd)

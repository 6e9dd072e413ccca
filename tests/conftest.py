"""What holds for every test process."""

import gc
import os
from collections.abc import Iterator

import pytest

from tests.support import on_postgres, postgres
from tests.support.stores import CHOICE

#: Where the longest tests are. They begin first, so that none of them is what all others wait for.
LONG = ("tests/crash/", "tests/properties/", "tests/cli/test_demo.py", "tests/docs/test_docs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Thousands of tests live until the end: a collector that looked at them again and again took a sixth of all."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Which store `durable` opens: those that `stores` names, or else the environment's choice, or sqlite.

    The environment chooses among those that are named, too. A test that names one is about that one.
    """
    marker, chosen = metafunc.definition.get_closest_marker("stores"), os.environ.get(CHOICE)
    if marker is not None:
        named = [chosen] if chosen in marker.args else list(marker.args)
        metafunc.parametrize("chosen_store", named, indirect=True)


@pytest.fixture(scope="module", autouse=True)
def chosen_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """For its tests and their children, `durable` opens this one. What outlives a test has to ask for it, too."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(request, "param"):
            patch.setenv(CHOICE, request.param)
        if on_postgres():
            postgres.server()  # before a child starts, which would else start one of its own
        yield

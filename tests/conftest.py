"""What holds for every test process."""

import gc

import pytest

#: Where the longest tests are. They begin first, so that none of them is what all others wait for.
LONG = ("tests/crash/", "tests/properties/", "tests/cli/test_demo.py", "tests/docs/test_docs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Thousands of tests live until the end: a collector that looked at them again and again took a sixth of all."""
    gc.collect()
    gc.freeze()

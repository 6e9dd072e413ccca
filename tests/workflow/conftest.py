"""The environment of bodies, in place for one test."""

from collections.abc import Iterator

import pytest

from stepwell.workflow import ambient
from stepwell.workflow.ambient import Environment
from stepwell.workflow.loop import WorkflowLoop


@pytest.fixture
def environment() -> Iterator[Environment]:
    made = ambient.install(WorkflowLoop)
    yield made
    made.close()
    ambient.uninstall(WorkflowLoop)

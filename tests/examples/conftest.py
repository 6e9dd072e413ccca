"""Worlds of the two release flows; the repositories are made once and copied."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.fixtures import BRANCH, make_bindings, make_fork
from tests.examples.support import PEER, World, copier

Copy = Callable[[Path], None]
CHECKS = [["test", "-f", "Cargo.toml"], ["{target}/debug/codex", "--version"], ["git", "diff", "--check"]]
FORKS = {"code-mode": "peezy-codex-fork", "python": "peezy-codex-fork-python"}


@pytest.fixture(scope="session")
def copy_bindings(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return copier(make_bindings, tmp_path_factory.mktemp("prepared") / "bindings")


@pytest.fixture(scope="session")
def copy_fork(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return copier(make_fork, tmp_path_factory.mktemp("prepared") / "fork")


@pytest.fixture
def bindings(tmp_path: Path, copy_bindings: Copy, monkeypatch: pytest.MonkeyPatch) -> World:
    """The bindings' repository with the flow installed in it, as a user has it."""
    copy_bindings(tmp_path)
    world = World(tmp_path, monkeypatch, "bindings-fixture")
    world.cwd = world.repo
    return world


@pytest.fixture(params=FORKS)
def fork(request: pytest.FixtureRequest, tmp_path: Path, copy_fork: Copy, monkeypatch: pytest.MonkeyPatch) -> World:
    """The fork's repository, and one of the twins installed beside it. Each test runs on both, so they cannot drift."""
    return make_world(tmp_path, copy_fork, monkeypatch, request.param)


def make_world(folder: Path, copy_fork: Copy, patch: pytest.MonkeyPatch, runner: str) -> World:
    copy_fork(folder)
    world = World(folder, patch, "codex-fixture")
    world.env(CODEX_FLOWS_ENABLE_CODE_MODE="1", CODEX_APP_SERVER_CODEX_COMMAND=f"node {PEER}")
    world.env(PEEZY_CODEX_REPO=str(world.repo), PEEZY_CODEX_CARGO_TARGET_DIR=str(folder / "target"))
    url = str(folder / "upstream-fixture")
    world.install(FORKS[runner], "peezy-codex-fork", checks=CHECKS, upstream_repo_url=url)
    assert world.git("branch", "--show-current") == BRANCH
    return world

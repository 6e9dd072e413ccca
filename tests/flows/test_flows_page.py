"""The page on flow packages: its programs run, its manifest loads."""

from pathlib import Path

import pytest

from stepwell.flows.context import DEFAULT_ENV
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Concurrency
from stepwell.flows.runners import RUNNER_NAMES

from .packages import REPOSITORY, package, run, write

PAGE = (REPOSITORY / "docs" / "flows.md").read_text()


def block(language: str, number: int = 0) -> str:
    return PAGE.split(f"```{language}\n")[number + 1].partition("```")[0]


def test_the_manifest_loads(tmp_path: Path) -> None:
    write(tmp_path / "flow.toml", block("toml"))
    write(tmp_path / "exec/greet.py", "")
    step = load_flow(tmp_path).steps[0]
    assert (step.runner, step.concurrency) == ("python", Concurrency("/payload/repo", 1))


@pytest.mark.parametrize(("runner", "language", "name"), [("bun", "ts", "a.ts"), ("python", "python", "a.py")])
def test_the_handlers_run(tmp_path: Path, runner: str, language: str, name: str) -> None:
    package(tmp_path, f'[[steps]]\nname = "a"\nrunner = "{runner}"\nscript = "{name}"\nmodule = true\n')
    write(tmp_path / name, block(language))
    outcome = run(tmp_path)
    assert outcome.result is not None, outcome.error
    assert (outcome.result.status, outcome.result.message) == ("changed", "hello Ada")


def test_every_runner_has_its_line() -> None:
    table = PAGE.partition("| `runner` |")[2].partition("\n\n")[0]
    assert {line.split("`")[1] for line in table.splitlines()[2:]} == set(RUNNER_NAMES)


def test_every_forwarded_variable_is_named() -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith("| `HOME`"))
    ends = [word for word in line.split("`") if word.isupper() or word.startswith("_")]
    for name in DEFAULT_ENV:
        assert any(name.endswith(end) for end in ends), name
    assert len(ends) == len(DEFAULT_ENV) + 1, "and STEPWELL_FORWARD_ENV"

"""The types of the public API: what is meant passes mypy and pyright at their strictest, what is wrong does not."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Lines with errors, and what was said there.
Errors = dict[int, str]
_MYPY_LINE = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*)$")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The right and the wrong program as Python files, where no other check of this tree looks."""
    folder = tmp_path_factory.mktemp("programs")
    found = {"right": folder / "right.py", "wrong": folder / "wrong.py"}
    shutil.copy(HERE / "right.py", found["right"])
    shutil.copy(HERE / "wrong.txt", found["wrong"])
    return found


@pytest.fixture(scope="module")
def mypy(programs: dict[str, Path]) -> dict[str, Errors]:
    """What mypy finds, with the options and the cache of this tree."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-absolute-path"]
    out = subprocess.run(
        [*command, *map(str, programs.values())], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [found for line in out.stdout.splitlines() if (found := _MYPY_LINE.match(line))]
    assert out.returncode in (0, 1) and not out.stderr, out.stderr + out.stdout  # noqa: PT018 - one outcome
    return {
        name: {int(found["line"]): found["text"] for found in lines if Path(found["file"]).name == path.name}
        for name, path in programs.items()
    }


@pytest.fixture(scope="module")
def pyright(programs: dict[str, Path]) -> dict[str, Errors]:
    """What pyright finds."""
    config = programs["right"].parent / "pyrightconfig.json"
    config.write_text(json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")]}))
    command = ["node", str(ROOT / "node_modules/pyright/index.js"), "--outputjson", "--project", str(config.parent)]
    out = subprocess.run([*command, "--pythonpath", sys.executable], capture_output=True, text=True, check=False)
    assert out.stdout, out.stderr
    said = [one for one in json.loads(out.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {
        name: {one["range"]["start"]["line"] + 1: one["message"] for one in said if Path(one["file"]).name == path.name}
        for name, path in programs.items()
    }


@pytest.fixture(params=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest) -> dict[str, Errors]:
    """What each checker finds, one after the other."""
    found: dict[str, Errors] = request.getfixturevalue(request.param)
    return found


def marked(path: Path) -> dict[int, range]:
    """The lines of the mistakes, and where each may be told: one in a decorator at the function below it, too."""
    lines = path.read_text().splitlines()
    return {
        number: range(number, number + (2 if "ERROR@def" in line else 1))
        for number, line in enumerate(lines, 1)
        if "# ERROR" in line
    }


def test_what_is_meant_has_its_types(errors: dict[str, Errors]) -> None:
    assert errors["right"] == {}


def test_each_mistake_is_found_and_nothing_else(errors: dict[str, Errors], programs: dict[str, Path]) -> None:
    wanted = marked(programs["wrong"])
    missed = [number for number, fits in wanted.items() if not any(at in fits for at in errors["wrong"])]
    assert missed == [], "mistakes that nobody finds"
    extra = {at: said for at, said in errors["wrong"].items() if not any(at in fits for fits in wanted.values())}
    assert extra == {}

"""The rules of the house are really checked, and one name stands for one command everywhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OFFENDERS = {
    "src/long.py": ("x = 1\n" * 501, 1, "501 lines"),
    "src/function.py": ("\n\ndef f():\n" + "    x = 1\n" * 70, 3, "f has 71 lines"),
    "src/silent.py": ("x = 1\nx: str = 2  # type: ignore[assignment]\n", 2, "silences"),
    "tests/test_marked.py": ("import pytest\n\n@pytest.mark.skipif(True)\ndef test(): ...\n", 3, "skips"),
    "tests/test_called.py": ("import pytest\npytest.importorskip('x')\n", 2, "skips"),
    "tests/test_imported.py": ("from pytest import xfail\n", 1, "skips"),
    "docs/page.md": (f"see pypi{'.'}org\n", 1, "registry"),
    "package-lock.json": ('{\n"resolved": ""}\n', 2, "addresses"),
}
INNOCENT = {
    "src/short.py": "x = 1\n" * 500,
    "src/text.py": "def f():\n" + "    x = '# type: ignore'\n" * 69,
    "tests/test_reader.py": "reader.skip(1)\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def house(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/house.py"), str(tree)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def plant(tree: Path, name: str, text: str) -> None:
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text(text)


@pytest.mark.parametrize("name", OFFENDERS)
def test_planted_offender_is_named(tree: Path, name: str) -> None:
    text, line, rule = OFFENDERS[name]
    plant(tree, name, text)
    result = house(tree)
    assert result.returncode == 1, result
    assert re.match(rf"{name}:{line}: .*{rule}", result.stdout), result


def test_innocent_files_pass(tree: Path) -> None:
    for name, text in INNOCENT.items():
        plant(tree, name, text)
    result = house(tree)
    assert (result.returncode, result.stdout) == (0, "house: 3 files, 0 offences\n"), result


def test_ignored_files_are_not_read(tree: Path) -> None:
    plant(tree, ".gitignore", "built/\n")
    plant(tree, "built/silent.py", OFFENDERS["src/silent.py"][0])
    assert house(tree).returncode == 0


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "AGENTS.md", ".ci/run"])
def test_documents_name_commands_that_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    in_code = r"(?:^|`|\d )make ([a-z]+)(?=$|`|  | #| ARGS)"
    named = set(re.findall(in_code, (ROOT / name).read_text(), re.MULTILINE))
    assert named <= targets
    assert "test" in named

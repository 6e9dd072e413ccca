"""The page for those who come from an orchestrator has each number, with tests that are there (source: spec E)."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/orchestrator.md"
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
NUMBERS = [*map(str, range(53, 121)), *map(str, range(140, 151))]


def rows() -> list[list[str]]:
    """The cells of each row of the page's tables that begins with a number."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests of a file, as pytest would collect them."""
    tree = ast.parse((ROOT / path).read_text())
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in found if node.name.startswith("test_"))


def test_every_number_has_one_row() -> None:
    assert [row[0] for row in rows()] == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_the_tests_of_a_row_are_there_or_it_says_that_it_comes_later(number: str) -> None:
    (row,) = (row for row in rows() if row[0] == number)
    _, there, here, tests = row
    assert there
    assert here
    told = TEST.findall(tests)
    if not told:
        assert tests == "-"
        assert re.match(r"(later|partly)\b", here), "what has no test says so"
        return
    assert TEST.sub("", tests).strip() == "", "nothing but tests"
    for path, test in told:
        assert test in names_in(path), f"{path} has no test {test}"


def test_every_test_of_a_number_is_in_its_row() -> None:
    told = {number: tests for number, _, _, tests in rows()}
    for file in (ROOT / "tests/conformance_workflow").glob("test_*.py"):
        for name in names_in(str(file.relative_to(ROOT))):
            assert f"::{name}`" in told[name.split("_")[1]], name

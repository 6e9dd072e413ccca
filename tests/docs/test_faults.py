"""The page of faults names tests that are there, for every fault and behaviour (source: spec codex-flows 7, 8)."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/faults.md"
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
#: What the tests of the original prove, of the parts that are about flows.
BEHAVIOURS = (
    *(f"8.1.{n}" for n in range(1, 11)),
    *("8.2.a", "8.2.b", "8.2.c", "8.2.d", "8.2.head.1", "8.2.head.2", "8.2.head.3", "8.3.1", "8.3.2", "8.3.3"),
    *(f"8.4 backend-client {n}" for n in range(1, 4)),
    *(f"8.4 client {n}" for n in range(1, 3)),
    *(f"8.4 local-client {n}" for n in range(1, 8)),
    *(f"8.4 flow-runner {n}" for n in range(1, 3)),
)


def rows() -> dict[str, list[str]]:
    """The cells of each row of the page's tables, by the first one."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row for row in cells if row[0] not in ("fault", "behaviour")}


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests of a file, as pytest would collect them."""
    tree = ast.parse((ROOT / path).read_text())
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in found if node.name.startswith("test_"))


def test_every_fault_and_every_behaviour_has_one_row() -> None:
    assert list(rows()) == [*map(str, range(1, 39)), *BEHAVIOURS]
    text = PAGE.read_text()
    assert all(text.count(f"\n| {name} |") == 1 for name in rows())


@pytest.mark.parametrize("name", [*map(str, range(1, 39)), *BEHAVIOURS])
def test_the_tests_of_a_row_are_there(name: str) -> None:
    row = rows()[name]
    assert all(row), "no cell is empty"
    told = TEST.findall(row[-1])
    assert told, "at least one test"
    assert TEST.sub("", row[-1]).strip() == "", "nothing but tests"
    for path, test in told:
        assert test in names_in(path), f"{path} has no test {test}"

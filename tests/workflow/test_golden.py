"""Journals that Python 3.11 recorded replay the same, here and in any interpreter that STEPWELL_PYTHONS names.

It names interpreters that have msgspec, with ':' between them, for example after
`python3.13 -m venv /tmp/v && /tmp/v/bin/pip install msgspec`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.golden import FILE, History, difference, read
from tests.workflow.programs import OPERATIONS, operations

ROOT = Path(__file__).parents[2]
PYTHONS = [sys.executable, *os.environ.get("STEPWELL_PYTHONS", "").split(os.pathsep)]


@pytest.mark.parametrize("python", [one for one in PYTHONS if one])
def test_recorded_journals_replay(python: str) -> None:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [python, "-m", "tests.workflow.golden"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]


def test_the_recorded_programs_have_every_operation() -> None:
    assert set().union(*(operations(history.program) for history in read(FILE))) == OPERATIONS


def test_a_journal_that_does_not_fit_is_told() -> None:
    history = next(one for one in read(FILE) if len(one.asked) > 2)
    other = History(history.python, ["seq", [["pause", 1], history.program]], history.first, history.journal, [], [])
    other.first.input = '{"program": ["step", "other"], "root": "r"}'
    assert difference(other) is not None

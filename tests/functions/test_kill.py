"""A process that is killed while it mutates: each recorded step has its row exactly once."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from stepwell.model.entries import StepCompleted
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.functions.shop import put_tables
from tests.support import assert_lawful, postgres
from tests.support.nursery import Fork

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "kills"), [("sqlite", 6), ("postgres", 3)])
def test_rows_and_steps_agree_after_each_kill(tmp_path: Path, name: str, kills: int) -> None:
    url = f"sqlite:///{tmp_path}/store.sqlite" if name == "sqlite" else postgres.address(tmp_path)
    put_tables(tmp_path / "migrations")
    random = Random(7)
    expected = 0
    for kill in range(kills):
        expected += run_until_killed(url, tmp_path, kill, random.randrange(1, 40))
    store = open_store(url, Settings())
    with closing(store.reader()) as reader:
        runs = reader.scan_runs()
        entries = [entry for run in runs for entry in reader.entries(run.no, limit=10_000)]
        rows = reader.app.execute("select note, count(*) from told group by note", (), 10_000).rows
    assert len(runs) == kills
    steps = [entry for entry in entries if entry.kind == StepCompleted.kind]
    assert sum(number for _, number in rows) == len(steps)
    for note, number in rows:
        assert number == sum(entry.key == f"k{note}" for entry in steps)
    assert len(steps) >= expected, "what was answered is there"
    assert_lawful(store)
    store.close()


def run_until_killed(url: str, folder: Path, number: int, after: int) -> int:
    """Kills the writer when it has said so many answers, in the middle of the next; answers how many it said."""
    command = [sys.executable, "-m", "tests.functions.writer", url, str(folder), str(number)]
    said = 0
    with Fork(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = int(line)
            if said == after:
                process.kill()
                break
        return max([said, *(int(line) for line in process.stdout if line.endswith("\n"))])

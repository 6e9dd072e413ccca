"""A process that is killed while it mutates: each recorded step has its row exactly once."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

from stepwell.model.entries import StepCompleted
from stepwell.store.sqlite.store import SqliteStore
from tests.functions.shop import TABLES
from tests.support import assert_lawful
from tests.support.nursery import Fork

ROOT = Path(__file__).parents[2]
KILLS = 6


def test_rows_and_steps_agree_after_each_kill(tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_shop.sql").write_text(TABLES)
    random = Random(7)
    expected = 0
    for kill in range(KILLS):
        expected += run_until_killed(tmp_path, kill, random.randrange(1, 40))
    store = SqliteStore(tmp_path / "store.sqlite")
    with closing(store.reader()) as reader:
        runs = reader.scan_runs()
        entries = [entry for run in runs for entry in reader.entries(run.no, limit=10_000)]
        rows = reader.app.execute("select note, count(*) from told group by note", (), 10_000).rows
    assert len(runs) == KILLS
    steps = [entry for entry in entries if entry.kind == StepCompleted.kind]
    assert sum(number for _, number in rows) == len(steps)
    for note, number in rows:
        assert number == sum(entry.key == f"k{note}" for entry in steps)
    assert len(steps) >= expected, "what was answered is there"
    assert_lawful(store)
    store.close()


def run_until_killed(folder: Path, number: int, after: int) -> int:
    """Kills the writer when it has said so many answers, in the middle of the next; answers how many it said."""
    command = [sys.executable, "-m", "tests.functions.writer", str(folder), str(number)]
    said = 0
    with Fork(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = int(line)
            if said == after:
                process.kill()
                break
        return max([said, *(int(line) for line in process.stdout if line.endswith("\n"))])

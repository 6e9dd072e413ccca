"""Records journals for `golden`: `python -m tests.workflow.golden_record [FILE] [COUNT]`, of every operation."""

import platform
import sys
from contextlib import closing
from pathlib import Path
from random import Random

from tests.support import open_store
from tests.workflow.campaign import program_of
from tests.workflow.driver import Driver
from tests.workflow.effects import Effects, prepare
from tests.workflow.golden import FILE, History, write
from tests.workflow.lives import replayed
from tests.workflow.programs import OPERATIONS, operations

COUNT = 60


def histories(seed: int) -> list[History]:
    """What became of one program: the runs that had a body."""
    chance = Random(f"program {seed}")
    program = program_of(chance)
    with closing(open_store("memory", Path())) as store:
        prepare(store)
        driver = Driver(store, program, f"moves {seed}", Effects())
        driver.live(moves=200)
        found = [_history(driver, run_id) for run_id in driver.told]
        driver.close()
    return found


def _history(driver: Driver, run_id: str) -> History:
    journal, first = driver.bench.journal(run_id), driver.first[run_id]
    seen, asked = replayed(first, journal).close()
    return History(platform.python_version(), driver.program, first, journal, seen, asked)


def chosen(count: int) -> list[int]:
    """Seeds whose programs have every operation, the rarest first."""
    known: set[str] = set()
    seeds: list[int] = []
    for seed in range(100_000):
        fresh = operations(program_of(Random(f"program {seed}"))) - known
        if fresh or (known == OPERATIONS and len(seeds) < count):
            known |= fresh
            seeds.append(seed)
        if len(seeds) >= count and known == OPERATIONS:
            break
    return seeds


if __name__ == "__main__":
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    seeds = chosen(int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)
    write(to, [history for seed in seeds for history in histories(seed)])
    print(f"{to}: {len(seeds)} programs, {to.stat().st_size:,} bytes")

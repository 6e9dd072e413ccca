"""One parent of very many children, on three servers: no deadlock, and the parent hears of its children in batches.

The soak has it with 2,000 children.
"""

import asyncio
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Struct

from stepwell import Stepwell
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.crash.crew import Crew, new_mark
from tests.crash.flow_processes import MARK
from tests.crash.pg_app import app, family
from tests.crash.pg_judge import check_log
from tests.crash.places import ForkedPlace
from tests.server.support import environ
from tests.support import assert_lawful
from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]


class Raised(Struct):
    """How a family was raised. `leases` of the parent; `batches`: commits in which it heard of children."""

    children: int
    seconds: float
    leases: int
    batches: int

    def __str__(self) -> str:
        return (
            f"{self.children} children in {self.seconds:.1f} s; the parent was leased {self.leases} times, and heard "
            f"of its children in {self.batches} commits"
        )


def raise_family(folder: Path, children: int, limit_s: float) -> Raised:
    """Three servers with a worker each, and a program that starts the parent and waits for it."""
    server = Server(synchronous_commit="on", autovacuum="on")
    mark = new_mark(children)
    env = environ(**{"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", MARK: mark})
    run = [sys.executable, "-m", "tests.crash.pg_process", "serve", "--cwd", str(folder), "--db", server.url]
    command = [*run, "--app", "tests.crash.pg_app:app", "--port", "0", "--slots", "20"]
    crew = Crew(mark, [ForkedPlace(folder, f"server{number}", command, env) for number in range(3)])

    async def main() -> float:
        async with crew.at_work(), Stepwell(server.url, app, worker=False) as sw:
            began = time.monotonic()
            parent = await sw.options(id="parent").start(family, children)
            assert await parent.result(timeout=limit_s) == sum(range(children))
            return time.monotonic() - began

    try:
        seconds = asyncio.run(main())
        store = open_store(server.url, Settings())
        assert_lawful(store)
        with closing(store.reader()) as reader:
            run_ = reader.run("main", "parent")
            assert run_ is not None
            entries = reader.entries(run_.no, limit=100_000)
        check_log(server.log)
        assert crew.leftovers(set()) == []
    finally:
        crew.clear()
        server.close()
    heard = Counter(entry.at for entry in entries if entry.kind == "child.ended")
    assert heard.total() == children
    leases = sum(entry.kind == "attempt.started" for entry in entries)
    raised = Raised(children, seconds, leases, len(heard))
    print(f"\n{raised}")
    return raised


@pytest.mark.timeout(100)
def test_a_parent_hears_of_its_children_in_batches(tmp_path: Path) -> None:
    """The limit is wide for a busy machine; it takes 5 s."""
    raised = raise_family(tmp_path, 300, 80)
    assert raised.leases < 30
    assert raised.batches < 150

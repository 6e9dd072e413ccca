"""A crowd before limited pools: three servers on one PostgreSQL, tens of thousands of tasks of one key, and others.

What is checked is in `crowd_judge.py`. The servers have leases of 3 s, and all else as it comes.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from msgspec import Struct

from stepwell import Stepwell
from stepwell.model.settings import Settings
from tests.crash.crew import Crew, new_mark
from tests.crash.crowd_app import LOG, app, hold, plain, tick
from tests.crash.flow_processes import MARK
from tests.crash.places import ForkedPlace, Place
from tests.server.support import environ
from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]
SERVERS = 3
KEYS = tuple(f"k{number}" for number in range(49))
#: How many starts are under way at once.
CHUNK = 1_000
#: Newcomers: one in so many seconds, in turn without a pool and with a key.
GAP_S = 0.05
#: How long a task holds its slot: one of the heap, one that comes by, one of a rush.
HEAP_S, VISIT_S, RUSH_S = 0.05, 0.02, 0.1


class Death(Struct):
    """A server that was killed, on the clock of the lines."""

    pid: int
    at: float


class Crowd:
    """One database and its servers."""

    def __init__(self, cwd: Path) -> None:
        self.cwd, self.lines = cwd, cwd / "lines"
        self.deaths: list[Death] = []
        self.start_s: dict[str, list[float]] = {}  # how long each start of a visit took
        # when a transaction committed is what its entries are ordered by
        self.server = Server(synchronous_commit="on", autovacuum="on", track_commit_timestamp="on")
        mark = new_mark(0)
        env = environ(**{MARK: mark, LOG: str(self.lines), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
        run = [sys.executable, "-m", "tests.crash.pg_process", "serve", "--cwd", str(cwd), "--db", self.server.url]
        command = [*run, "--app", "tests.crash.crowd_app:app", "--port", "0"]
        self.places = [ForkedPlace(cwd, f"server{number}", command, env) for number in range(SERVERS)]
        self.crew = Crew(mark, self.places)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stepwell]:
        """Servers that live, and a program that starts runs and has no worker."""
        async with self.crew.at_work():
            await self.crew.all_open()
            async with Stepwell(self.server.url, app, worker=False, settings=Settings()) as sw:
                yield sw
            await self.crew.all_open()

    async def kill(self, place: Place) -> None:
        """SIGKILL; another process takes the place of the dead one."""
        while (process := place.living) is None:  # noqa: ASYNC110 - a process that starts
            await asyncio.sleep(0.05)
        self.deaths.append(Death(process.pid, time.monotonic()))
        assert place.kill()

    async def pile(self, sw: Stepwell, count: int) -> float:
        """The heap: so many tasks of one key. Answers how many seconds it took."""
        began, of_big = time.monotonic(), sw.options(key="big")
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            await asyncio.gather(*(of_big.options(id=f"heap-{number}").start(hold, HEAP_S) for number in numbers))
        return time.monotonic() - began

    async def visit(self, sw: Stepwell, name: str, seconds: float) -> None:
        """Newcomers, a few a second: `NAME-plain-N` without a pool, and `NAME-keyed-N`, whose keys are free."""
        took = self.start_s.setdefault(name, [])

        async def start(view: Stepwell, begin: Callable[[Stepwell], Awaitable[object]]) -> None:
            began = time.monotonic()
            await begin(view)
            took.append(time.monotonic() - began)

        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds / GAP_S / 2)):
                no_pool, keyed = (sw.options(id=f"{name}-{kind}-{number}") for kind in ("plain", "keyed"))
                group.create_task(start(no_pool, lambda view: view.start(plain)))
                await asyncio.sleep(GAP_S)
                keyed = keyed.options(key=KEYS[number % len(KEYS)])
                group.create_task(start(keyed, lambda view: view.start(hold, VISIT_S)))
                await asyncio.sleep(GAP_S)

    async def rush(self, sw: Stepwell, each: int) -> None:
        """So many tasks of each key at once: more than there are slots, until they are done."""
        for number in range(each):
            starts = (sw.options(id=f"rush-{key}-{number}", key=key).start(hold, RUSH_S) for key in KEYS)
            await asyncio.gather(*starts)

    async def ticks(self, sw: Stepwell, count: int) -> None:
        """So many tasks that cost a token."""
        await asyncio.gather(*(sw.options(id=f"tick-{number}").start(tick) for number in range(count)))

    async def all_ended(self, *names: str) -> None:
        """Until the runs have ended whose ids begin so."""
        query = "select exists(select from run where ended_at is null and id like any(%s))"
        patterns = [f"{name}-%" for name in names]
        with psycopg.connect(self.server.conninfo, autocommit=True) as db:
            while db.execute(query, (patterns,)).fetchall() == [(True,)]:  # noqa: ASYNC110 - rows of other processes
                await asyncio.sleep(0.1)

    def drop_untouched(self) -> None:
        """What is left of the heap and was never leased goes: the doctor would need minutes for it."""
        with psycopg.connect(self.server.conninfo) as db:
            db.execute("create temp table gone as select no from run where id like 'heap-%' and head_seq = 1")
            for table, number in (("entry", "run_no"), ("task", "run_no"), ("run", "no")):
                db.execute(f"delete from {table} where {number} in (select no from gone)".encode())

    def close(self) -> None:
        self.crew.clear()
        self.server.close()


def share_of(seconds: Sequence[float], share: float) -> float:
    """A quantile: the value that this share is below."""
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]


def soak_s() -> float:
    return float(os.environ.get("SOAK_SECONDS", "600"))

"""What is moved from database to database while it runs: an app, its runs half-way, and every row that stores keep."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from stepwell import App, Context, Signal, Stepwell
from stepwell.engine.engine import Engine
from stepwell.model.settings import Settings
from stepwell.store.copying import TABLES
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.local import open_store
from tests.support import assert_lawful

PATIENCE_S = 20
#: What JSON, COPY or a terminal could stumble over.
EVERY = "".join(map(chr, [*range(0x20, 0x80), 0x85, 0xA0, 0x2028, 0xFFFE, 0x1F600, 0x10FFFF])) + "\t\n\r\b\0\\N \\. \\x"
SETTINGS = Settings(poll_ms=100, blob_over_bytes=20_000, linger_ms=50)

app = App("move")
go, more = Signal("go", str), Signal("more", str)


@app.workflow
async def child(ctx: Context, name: str) -> str:
    return name + await ctx.wait_for_signal(go)


@app.workflow
async def waits(ctx: Context, said: str) -> list[Any]:
    first = await ctx.step("first", lambda: said)
    kid = asyncio.create_task(ctx.call(child, "kid"))
    heard = await ctx.wait_for_signal(go)
    return [first == said, heard, await ctx.wait_for_signal(more), await kid]


@app.workflow
async def sleeps(ctx: Context, for_s: float) -> str:
    await ctx.step("before", lambda: 1)
    await ctx.sleep(for_s)
    return "slept"


def run(url: str, work: Callable[[Stepwell], Awaitable[Any]], *, worker: bool = True) -> Any:
    """What a program does that has the database open."""

    async def main() -> Any:
        async with Stepwell(url, app, settings=SETTINGS, worker=worker) as sw, asyncio.timeout(PATIENCE_S):
            return await work(sw)

    return asyncio.run(main())


async def begin(sw: Stepwell) -> None:
    """Leaves runs of every kind: parked with signals that nobody read, asleep, held, ended, and one not begun."""
    await sw.options(id="waits").start(waits, EVERY + "x" * 30_000)
    await sw.handle("waits").signal(more, EVERY)
    await sw.options(id="held").start(waits, "h")
    await sw.options(id="sleeps").start(sleeps, 1.5)
    assert await (await sw.options(id="slept").start(sleeps, 0.01)).result() == "slept"
    for name in ("waits", "held", "sleeps"):
        async for state in sw.handle(name).watch():
            if state.status in ("waiting", "sleeping"):
                break


async def finish(sw: Stepwell) -> list[Any]:
    """Lets them all go to their ends."""
    await sw.handle("held").signal(more, "m")
    async for one in sw.runs(name="move:child"):
        await sw.handle(one.id).signal(go, "!")
    for name in ("waits", "held"):
        await sw.handle(name).signal(go, "on")
    return [await sw.handle(name).result() for name in ("waits", "held", "sleeps", "new")]


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that a copy takes along."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with closing(connected(url)) as db:
        for table in TABLES:
            names, key = (", ".join(f'"{name}"' for name in part) for part in (table.columns, table.key))
            statement = f"select {names} from {table.name} order by {key}"
            found[table.name] = [tuple(row) for row in db.execute(statement).fetchall()]
    return found


def connected(url: str) -> Any:
    return sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)


def lawful(url: str) -> None:
    with closing(open_store(url, SETTINGS)) as store:
        assert_lawful(store, SETTINGS)


def command(url: str, *commands: Any) -> list[Any]:
    """What the kernel answers, without a worker."""

    async def main() -> list[Any]:
        async with Engine(open_store(url, SETTINGS), settings=SETTINGS, roles=False) as engine:
            return [await engine.submit(one) for one in commands]

    return asyncio.run(main())


def filled(path: Path, runs: int = 0) -> str:
    """A SQLite database, with entries that belong to nobody."""
    SqliteStore(path).migrate()
    with closing(sqlite3.connect(path)) as db, db:
        entries = ((run, seq, "step.completed", "k", 1, 1, 1, "x" * 200) for run in range(runs) for seq in range(100))
        db.executemany("insert into entry values (?,?,?,?,?,?,?,?)", entries)
    return str(path)

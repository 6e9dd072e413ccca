"""A program on PostgreSQL in a process with several lanes, and one more for its mutations."""

import asyncio
from contextlib import closing
from pathlib import Path
from random import Random

import psycopg

from stepwell import App, Completion, Context, MutationContext, QueryContext, Signal, Stepwell
from stepwell.model.settings import Settings
from stepwell.store.postgres.store import PostgresStore
from tests.engine.faulty import wait_until
from tests.support import assert_lawful, postgres

SETTINGS = Settings(lanes=4, poll_ms=200, mutation_limit_ms=60_000)
app = App("laned", migrations=Path(__file__).parent / "lanes_migrations")
word = Signal("word", int)


@app.action
async def double(n: int) -> int:
    return 2 * n


@app.mutation
def keep(ctx: MutationContext, name: str, n: int) -> int:
    ctx.db.execute("insert into kept (name, n) values (?, ?)", name, n)
    return n


@app.mutation
def ended(ctx: MutationContext, completion: Completion) -> None:
    ctx.db.execute("insert into kept (name, n) values (?, ?)", f"end of {completion.run_id}", 1)


@app.query
def all_kept(ctx: QueryContext) -> list[str]:
    return ctx.db.all("select name || ' ' || n from kept", type=str)


@app.workflow
async def part(ctx: Context, n: int) -> int:
    await ctx.sleep(0.005 * (n % 3))
    return await ctx.step("count", lambda: n) + await ctx.call(double, n)


@app.workflow
async def whole(ctx: Context, name: str, parts: list[int], words: int) -> int:
    parted = await asyncio.gather(*(ctx.call(part, n) for n in parts), ctx.call(double, len(parts)))
    said = [await ctx.wait_for_signal(word) for _ in range(words)]
    kept, doubled = await asyncio.gather(ctx.call(keep, name, sum(said)), ctx.call(double, sum(said)))
    return sum(parted) + kept + doubled


@app.workflow
async def steps(ctx: Context, count: int) -> int:
    return sum([await ctx.step("count", lambda: 1) for _ in range(count)])


async def one(sw: Stepwell, no: int, chance: Random) -> None:
    """A workflow with the signals that it waits for, in any order with what else it does."""
    parts, words = [chance.randrange(9) for _ in range(chance.randrange(4))], chance.randrange(4)
    options = sw.options(id=f"r{no}") if no % 3 else sw.options(id=f"r{no}", on_complete=ended)
    run = await options.start(whole, f"r{no}", parts, words)
    await asyncio.sleep(chance.choice((0, 0.01, 0.05)))
    await asyncio.gather(*(sw.handle(run.id).signal(word, turn + 1) for turn in range(words)))
    assert await run.result() == 3 * sum(parts) + 2 * len(parts) + 3 * sum(range(words + 1))


def test_many_workflows_come_to_what_they_would_in_one_lane(tmp_path: Path) -> None:
    """So do their callbacks, each in the commit of its end."""
    url, chance, count = postgres.address(tmp_path), Random(1), 30

    async def main() -> list[str]:
        async with Stepwell(url, app, settings=SETTINGS) as sw:
            async with asyncio.timeout(60):
                await asyncio.gather(*(one(sw, no, Random(chance.random())) for no in range(count)))
            assert all(lane.commits for lane in sw._connection.engine.lanes.all)
            return await sw.call(all_kept)

    rows = asyncio.run(main())
    assert len(set(rows)) == len(rows) == count + count // 3
    assert_lawful(PostgresStore(url), SETTINGS)


def test_a_mutation_that_takes_long_holds_up_nobody_else(tmp_path: Path) -> None:
    url = postgres.address(tmp_path)

    async def main() -> None:
        async with Stepwell(url, app, settings=SETTINGS) as sw:
            with closing(psycopg.connect(url)) as db:
                lock(db)
                slow = [await sw.options(id=f"slow{no}").start(whole, f"slow{no}", [], 0) for no in range(4)]
                await asyncio.to_thread(until_somebody_waits, url)
                runs = [await sw.start(steps, 10) for _ in range(8)]
                async with asyncio.timeout(60):
                    assert await asyncio.gather(*(run.result() for run in runs)) == [10] * 8
                assert not any([(await run.status()).status == "completed" for run in slow])
                db.rollback()
            async with asyncio.timeout(60):
                assert await asyncio.gather(*(run.result() for run in slow)) == [0] * 4

    asyncio.run(main())
    assert_lawful(PostgresStore(url), SETTINGS)


def lock(db: "psycopg.Connection[tuple[str]]") -> None:
    """Takes the app's table, which is in the schema beside the kernel's."""
    beside = "select schemaname from pg_tables where tablename = 'kept' and schemaname = current_schema() || '_app'"
    ((schema,),) = db.execute(beside).fetchall()
    db.execute(f"lock table {schema}.kept".encode())


def until_somebody_waits(url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as db:
        wait_until(lambda: bool(db.execute("select 1 from pg_locks where not granted").fetchall()))

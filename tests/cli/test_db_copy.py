"""`stepwell db copy`: what runs on one store goes on where it was copied to, and nothing else changes."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell import App, Context, Signal, Stepwell
from stepwell.engine.engine import Engine
from stepwell.model.commands import HoldRun, ReleaseRun
from stepwell.model.settings import Settings
from stepwell.store.copying import TABLES
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.local import open_store
from tests.cli.support import Shop
from tests.support import assert_lawful, postgres

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


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "shop").mkdir()
    return Shop(tmp_path / "shop")


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


def test_half_way_and_back(shop: Shop, tmp_path: Path) -> None:
    """SQLite to PostgreSQL, half-way; its journals are the same to the byte; and its runs end as they would have."""
    old, new, back = f"sqlite:///{tmp_path}/old.sqlite", postgres.address(tmp_path), f"sqlite:///{tmp_path}/back.sqlite"
    run(old, begin)
    command(old, HoldRun("held", by="me"))
    run(old, lambda sw: sw.options(id="new").start(sleeps, 0.01), worker=False)
    before = rows(old)
    made = shop.json("db", "copy", old.removeprefix("sqlite:///"), new)
    assert rows(old) == before == rows(new)
    assert made["rows"] == {name: len(found) for name, found in before.items()}
    assert (made["position"], made["notes"]) == (before["change"][-1][0], [])
    lawful(new)
    command(new, ReleaseRun("held", by="me"))
    assert run(new, finish) == [[True, "on", EVERY, "kid!"], [True, "on", "m", "kid!"], "slept", "slept"]
    after = rows(new)
    assert len({row[0] for row in after["run"]}) == len(before["run"])
    assert [row for row in after["change"] if row[0] <= made["position"]] == before["change"]
    assert len(after["change"]) > len(before["change"])
    lawful(new)
    assert "back.sqlite" in shop.text("db", "copy", new, back)
    assert rows(back) == after
    run(back, lambda sw: sw.options(id="newer").start(sleeps, 0.01))
    lawful(back)


def filled(path: Path, runs: int = 0) -> str:
    """A SQLite database, with entries that belong to nobody."""
    SqliteStore(path).migrate()
    with closing(sqlite3.connect(path)) as db, db:
        entries = ((run, seq, "step.completed", "k", 1, 1, 1, "x" * 200) for run in range(runs) for seq in range(100))
        db.executemany("insert into entry values (?,?,?,?,?,?,?,?)", entries)
    return str(path)


def test_what_is_in_use_or_full_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    old, new, other = str(tmp_path / "old.sqlite"), postgres.address(tmp_path / "new"), postgres.address(tmp_path / "o")
    run(f"sqlite:///{old}", begin)

    async def meanwhile(sw: Stepwell) -> None:
        assert "in use" in await asyncio.to_thread(shop.refused, "db", "copy", source, other)
        assert await asyncio.to_thread(shop.json, "db", "copy", source, str(tmp_path / "live"), "--live")

    shop.json("db", "copy", old, new)
    for source in (f"sqlite:///{old}", new):
        (tmp_path / "live").unlink(missing_ok=True)
        run(source, meanwhile, worker=False)
        lawful(f"sqlite:///{tmp_path}/live")
    for target in (new, old):
        before = rows(new)
        assert "empty" in (said := shop.refused("db", "copy", old, target)) or "exists" in said
        assert rows(new) == before
    shop.json("db", "copy", old, other)  # what was refused left nothing in its way


def test_output_with_a_nul_is_shown(shop: Shop, tmp_path: Path) -> None:
    old, new = filled(tmp_path / "old.sqlite"), postgres.address(tmp_path)
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("insert into output values (1, 1, 1, 'stdout', 1, ?)", ("a\0b\\\t",))
    assert "1 pieces of output had a NUL" in shop.json("db", "copy", old, new)["notes"][0]
    assert [row[-1] for row in rows(new)["output"]] == ["a\u2400b\\\t"]
    with closing(sqlite3.connect(old)) as db, db:
        db.execute(
            "insert into event values (1, 's', ?, 't', 'h', null, null, 'r', 0, 0, 1, '{}', '', '', '', 0)", ("\0",)
        )
    said = shop.refused("db", "copy", old, postgres.address(tmp_path / "other"))
    assert "of event" in said
    assert "NUL" in said


def test_a_copy_that_was_killed_keeps_servers_out_until_it_is_made_anew(shop: Shop, tmp_path: Path) -> None:
    old, new, other = filled(tmp_path / "old.sqlite", 2_000), postgres.address(tmp_path), filled(tmp_path / "o")
    process = shop.start("db", "copy", old, new)
    with closing(psycopg.connect(new, autocommit=True)) as db:
        while not db.execute("select to_regclass('migration') is not null").fetchall()[0][0]:
            assert process.poll() is None
        while not db.execute("select 1 from migration where no = 0").fetchall():
            assert process.poll() is None
        assert "another copy" in shop.refused("db", "copy", other, new)
        assert "in use" in shop.refused("db", "copy", old, other)
        said = shop.refused("serve", "--db", new)
        process.kill()
        process.communicate()
        assert "a copy of" in said
        assert f"{tmp_path}/old.sqlite" in said
        assert "a copy of" in shop.refused("serve", "--db", new)
        assert db.execute("select count(*) from entry").fetchall() == [(0,)]
    assert shop.json("db", "copy", old, new)["rows"]["entry"] == 200_000
    assert len(rows(new)["entry"]) == 200_000


def test_what_is_wrong_is_said_and_no_password(shop: Shop, tmp_path: Path) -> None:
    old = filled(tmp_path / "old.sqlite")
    (tmp_path / "no").write_text("no database")
    for source, target, says in (
        (old, "postgresql://me:secret@127.0.0.1:1/x", "refused"),
        (old, "postgresql://me:sec%rets@127.0.0.1:1/x", "no address"),
        ("postgresql://me:secret@127.0.0.1:1/x", str(tmp_path / "new"), "refused"),
        (postgres.address(tmp_path / "empty"), str(tmp_path / "new"), "no database of Stepwell"),
        (str(tmp_path / "nowhere"), str(tmp_path / "new"), "no database"),
        (str(tmp_path / "no"), str(tmp_path / "new"), "no database"),
        (old, "memory:", "no database"),
        (old, "mysql://me:secret@h/x", "no database"),
        (old, str(tmp_path / "no" / "new"), ""),
        (old, old, "exists"),
    ):
        said = shop.refused("db", "copy", source, target)
        assert says in said
        assert "sec" not in said
    assert not (tmp_path / "new").exists()
    shop.misused("db", "copy", old)

"""Backup, restore and verify of a PostgreSQL database, through a file that is restored to both stores."""

import asyncio
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from stepwell import Stepwell
from stepwell.model.commands import HoldRun, ReleaseRun
from tests.cli.moving import EVERY, begin, command, filled, finish, lawful, rows, run, sleeps
from tests.cli.support import STEPWELL, Shop
from tests.server.support import environ
from tests.support import postgres

ENDS = [[True, "on", EVERY, "kid!"], [True, "on", "m", "kid!"], "slept", "slept"]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "shop").mkdir()
    return Shop(tmp_path / "shop")


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with runs of every kind, half-way."""
    url = postgres.address(tmp_path)
    run(url, begin)
    command(url, HoldRun("held", by="me"))
    return url


def test_a_backup_is_verified_and_restored_to_both(shop: Shop, db: str, tmp_path: Path) -> None:
    async def meanwhile(sw: Stepwell) -> None:
        await sw.options(id="new").start(sleeps, 0.01)
        made = await asyncio.to_thread(shop.json, "db", "backup", "b", "--db", db)
        assert made["bytes"] == (shop.cwd / "b").stat().st_size
        assert "test" not in made["database"]  # the user
        await sw.options(id="later").start(sleeps, 60)

    run(db, meanwhile, worker=False)
    whole = rows(db)
    assert [path.name for path in shop.cwd.iterdir()] == ["b"]
    found = shop.json("db", "verify", "b")
    assert (found["ok"], found["damage"], found["offences"]) == (True, [], [])
    assert "--force" in shop.refused("db", "backup", "b", "--db", db)
    new, file = postgres.address(tmp_path / "new"), f"sqlite:///{tmp_path}/file"
    for url in (new, file):
        shop.json("db", "restore", "b", "--db", url)
        restored = rows(url)
        assert {row[2] for row in whole["run"]} - {row[2] for row in restored["run"]} == {"later"}
        assert set(restored["entry"]) <= set(whole["entry"])
        assert shop.json("db", "verify", "--db", url)["ok"]
        command(url, ReleaseRun("held", by="me"))
        assert run(url, finish) == ENDS
        assert shop.json("db", "verify", "--db", url)["ok"]  # its rows are others now, and that is no damage
        lawful(url)


def test_restore_asks_for_a_new_database(shop: Shop, db: str, tmp_path: Path) -> None:
    before = rows(db)
    shop.json("db", "backup", "b", "--db", db)
    assert "not empty" in shop.refused("db", "restore", "b", "--db", db)
    assert "new database" in shop.refused("db", "restore", "b", "--db", db, "--force")
    assert rows(db) == before
    new = postgres.address(tmp_path / "new")
    with closing(sqlite3.connect(shop.cwd / "b")) as file, file:
        file.execute("update event set type = 'other' where no < 0")
        file.execute("update run set tags = '{}' where no = 1")
    found = shop.json("db", "verify", "b", code=1)
    assert found["damage"] == [f"table run: its rows are not the {len(before['run'])} that were backed up"]
    assert "is damaged: table run" in shop.refused("db", "restore", "b", "--db", new)
    assert "is damaged" in shop.refused("db", "restore", filled(tmp_path / "orphans", 1), "--db", new)
    shop.refused("db", "restore", "nothing", "--db", new)
    (shop.cwd / "text").write_text("text")
    shop.refused("db", "restore", "text", "--db", new)
    with closing(psycopg.connect(new)) as connection:
        assert connection.execute("select to_regclass('migration')").fetchall() == [(None,)]


def test_verify_names_what_is_wrong(shop: Shop, db: str) -> None:
    assert "all well" in shop.text("db", "verify", "--db", db)
    with closing(psycopg.connect(db, autocommit=True)) as connection:
        connection.execute("select setval('run_no', 1)")
        connection.execute("update entry set at = 0 where seq = 2 and run_no = (select no from run where id = 'waits')")
    found = shop.json("db", "verify", "--db", db, code=1)
    assert found["damage"][0].startswith("the sequence of run stands at 1, and number ")
    assert any(one.startswith("law 1: waits") for one in found["offences"])
    assert "NOT well" in shop.text("db", "verify", "--db", db, code=1)


def test_what_cannot_be_reached_is_said(shop: Shop, tmp_path: Path) -> None:
    away, empty = "postgresql://me:secret@127.0.0.1:1/x", postgres.address(tmp_path / "empty")
    filled(shop.cwd / "b")
    for verb in (["backup", "new"], ["verify"], ["restore", "b"]):
        said = shop.refused("db", *verb, "--db", away)
        assert "refused" in said
        assert "secret" not in said
    for verb in (["backup", "new"], ["verify"]):
        assert "no database of Stepwell" in shop.refused("db", *verb, "--db", empty)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "psycopg.py").write_text("raise ImportError('no libpq')")
    path = f"{tmp_path}/none:{Path(__file__).parents[2]}/src"
    args = [*STEPWELL, "db", "verify", "--db", empty]
    done = subprocess.run(args, env=environ(PYTHONPATH=path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert not (shop.cwd / "new").exists()

"""`stepwell db copy`: what runs on one store goes on where it was copied to, and nothing else changes."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from stepwell import Stepwell
from stepwell.model.commands import HoldRun, ReleaseRun
from stepwell.worker.local import open_store
from tests.cli.moving import EVERY, SETTINGS, begin, command, filled, finish, lawful, rows, run, sleeps
from tests.cli.support import Shop
from tests.support import postgres, stamp


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "shop").mkdir()
    return Shop(tmp_path / "shop")


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
    assert made["position"] == before["change"][-1][0]
    lawful(new)
    command(new, ReleaseRun("held", by="me"))
    assert run(new, finish) == [[True, "on", EVERY, "kid!"], [True, "on", "m", "kid!"], "slept", "slept"]
    stamp(open_store(new, SETTINGS))
    after = rows(new)
    assert len({row[0] for row in after["run"]}) == len(before["run"])
    assert [row for row in after["change"] if row[0] <= made["position"]] == before["change"]
    assert len(after["change"]) > len(before["change"])
    lawful(new)
    assert "back.sqlite" in shop.text("db", "copy", new, back)
    assert rows(back) == after
    run(back, lambda sw: sw.options(id="newer").start(sleeps, 0.01))
    lawful(back)


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


def test_what_programs_print_may_have_a_nul(shop: Shop, tmp_path: Path) -> None:
    said = "a\0b\\\t\x1a0\x1a1"
    old, new = filled(tmp_path / "old.sqlite"), postgres.address(tmp_path)
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("insert into output values (1, 1, 1, 'stdout', 1, ?)", (said,))
    shop.json("db", "copy", old, new)
    with closing(open_store(new, SETTINGS)) as store, closing(store.reader()) as reader:
        assert [one.text for one in reader.output(1)] == [said]
    shop.json("db", "copy", new, back := str(tmp_path / "back.sqlite"))
    assert [row[-1] for row in rows(f"sqlite:///{back}")["output"]] == [said]
    with closing(sqlite3.connect(old)) as db, db:
        db.execute(
            "insert into event values (1, 's', ?, 't', 'h', null, null, 'r', 0, 0, 1, '{}', '', '', '', 0)", ("\0",)
        )
    said = shop.refused("db", "copy", old, postgres.address(tmp_path / "other"))
    assert "of event" in said
    assert "NUL" in said


def test_a_copy_that_was_killed_keeps_servers_out_until_it_is_made_anew(shop: Shop, tmp_path: Path) -> None:
    old, new, other = filled(tmp_path / "old.sqlite", 400), postgres.address(tmp_path), filled(tmp_path / "o")
    process = shop.start("db", "copy", old, new)
    with closing(psycopg.connect(new, autocommit=True)) as db:
        for seen in (
            "select to_regclass('migration')",
            "select no from migration where no = 0",
            "select pid from pg_locks where relation = to_regclass('entry') and mode like 'Access%'",
        ):
            while db.execute(seen).fetchone() in (None, (None,)):
                assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        assert "another copy" in shop.refused("db", "copy", other, new)
        assert "in use" in shop.refused("db", "copy", old, other)
        said = shop.refused("serve", "--db", new)
        process.kill()
        process.communicate()
        assert "a copy of" in said
        assert f"{tmp_path}/old.sqlite" in said
        assert "a copy of" in shop.refused("serve", "--db", new)
        assert db.execute("select count(*) from entry").fetchall() == [(0,)]
    assert shop.json("db", "copy", old, new)["rows"]["entry"] == 40_000
    assert len(rows(new)["entry"]) == 40_000


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

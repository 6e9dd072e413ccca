"""`stepwell db migrate` and `db status`: on both stores, by a program and by a DBA."""

import asyncio
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from stepwell import Stepwell
from tests.cli.moving import run, sleeps
from tests.cli.support import Shop
from tests.cli.test_db_app import APP, POSTGRES, SQLITE, schema_of
from tests.support import postgres


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A folder with an app that has tables."""
    shop = Shop(tmp_path / "shop")
    (shop.cwd / "migrations").mkdir(parents=True)
    (shop.cwd / "goods.py").write_text(APP)
    (shop.cwd / "migrations" / "0001_goods.sqlite.sql").write_text(SQLITE)
    (shop.cwd / "migrations" / "0001_goods.postgres.sql").write_text(POSTGRES)
    return shop


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address where there is nothing yet."""
    return postgres.address(tmp_path) if request.param == "postgres" else str(tmp_path / "file.sqlite")


def test_migrate_and_status(shop: Shop, url: str) -> None:
    shop.refused("db", "status", "--db", url)
    first = shop.json("db", "migrate", "--db", url)
    assert (first["applied"][0], first["app"]) == ("0001_kernel", [])
    assert shop.json("db", "migrate", "--db", url, "--app", "goods:app") == {**first, "applied": [], "app": [1]}
    assert "is up to date" in shop.text("db", "migrate", "--db", url, "--app", "goods:app")

    async def look(sw: Stepwell) -> None:
        await sw.options(id="r").start(sleeps, 60)
        found = await asyncio.to_thread(shop.json, "db", "status", "--db", url)
        assert found["ok"]
        assert found["schema"] == {"applied": list(range(1, len(first["applied"]) + 1)), "missing": []}
        assert {"run", "entry", "change"} <= {one["name"] for one in found["tables"]}
        assert found["counts"]["run.queued"] == 1
        assert found["changes"]["scope"] == "main"
        if url.startswith("postgres"):
            assert found["lanes"] > 0
            assert found["connections"] > found["lanes"]
        assert "up to date" in await asyncio.to_thread(shop.text, "db", "status", "--db", url)

    run(url if url.startswith("postgres") else f"sqlite:///{url}", look, worker=False)


def test_a_schema_that_is_not_known_is_refused(shop: Shop, tmp_path: Path) -> None:
    new = postgres.address(tmp_path)
    shop.json("db", "migrate", "--db", new)
    with closing(psycopg.connect(new, autocommit=True)) as db:
        for change, says in (
            ("update migration set hash = 'x' where no = 1", "not what migration 1 of this program makes"),
            ("insert into migration values (99, 'new', 'x', now())", "newer than this program"),
            ("truncate migration", "has tables of migration 0001_kernel"),
            ("alter table migration rename hash to digest", "its table `migration` is another one"),
        ):
            db.execute("create table kept as select * from migration")
            db.execute(change)
            for args in (["serve"], ["db", "migrate"], ["db", "copy", "nothing"]):
                said = shop.refused(*args, *([new] if args[-1] == "nothing" else ["--db", new]))
                assert says in said or "no database" in said
            if "rename" not in change:
                found = shop.json("db", "status", "--db", new, code=1)
                assert found["schema"].get("refused") or found["schema"]["missing"]
                db.execute("truncate migration")
                db.execute("insert into migration select * from kept")
            db.execute("drop table kept")


def test_a_dba_applies_what_is_printed(shop: Shop, tmp_path: Path) -> None:
    """A user without rights on the schema starts servers on it; the script may be run again."""
    new = postgres.address(tmp_path)
    schema = new.rpartition("search_path%3D")[2]
    script = shop.ok("db", "migrate", "--print", "--db", new, "--app", "goods:app")
    grants = "\n".join(line.removeprefix("-- ") for line in script.splitlines() if line.startswith("-- grant"))
    user = f"u{schema}"
    with closing(psycopg.connect(new, autocommit=True)) as db:
        db.execute(f"create role {user} login")
        for _ in range(2):
            db.execute(script)
            db.execute(grants.replace("USER", user))
    low = new.replace("//test@", f"//{user}@")
    assert shop.json("db", "migrate", "--db", low, "--app", "goods:app") == {
        "database": shop.json("db", "status", "--db", low)["database"],
        "applied": [],
        "app": [],
    }
    assert run(low, begun) == "slept"
    with closing(psycopg.connect(low, autocommit=True)) as db, pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("create table x (y int)")
    other = postgres.address(tmp_path / "other").replace("//test@", f"//{user}@")
    assert "stepwell db migrate --print" in shop.refused("serve", "--db", other)
    with closing(psycopg.connect(new, autocommit=True)) as db:
        db.execute("update migration set hash = 'x' where no = 1")
        with pytest.raises(psycopg.errors.RaiseException, match="another one"):
            db.execute(script)
        db.execute("rollback")
    assert schema_of(new) in script
    assert "needs no DBA" in shop.refused("db", "migrate", "--print", "--db", "file")


async def begun(sw: Stepwell) -> str:
    return await (await sw.options(id="r").start(sleeps, 0.01)).result()

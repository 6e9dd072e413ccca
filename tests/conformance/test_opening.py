"""What stores that stay have in common: everything is there after opening again; migrations are applied once."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.entries import ActionScheduled
from stepwell.model.errors import Unavailable
from stepwell.store.port import Store
from stepwell.store.postgres.sql import migrations as postgres_migrations
from stepwell.store.sqlite.sql import migrations as sqlite_migrations
from tests.support import Bench, by_hand, durable, durable_url, snapshot
from tests.support.crowd import at_once

pytestmark = pytest.mark.stores("sqlite", "postgres")


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same store again, as a program does that starts."""
    opened: list[Store] = []

    def reopened() -> Store:
        opened.append(durable(tmp_path / "s.sqlite"))
        opened[-1].migrate()
        return opened[-1]

    yield reopened
    for store in opened:
        store.close()


def ledger(folder: Path) -> list[Any]:
    with by_hand(folder / "s.sqlite") as db:
        rows: list[Any] = db.execute("select no, name, length(hash) from migration order by no").fetchall()
        return rows


def whole(store: Store) -> list[Any]:
    """The ledger of one that each migration was applied to once."""
    made = sqlite_migrations() if store.dialect == "sqlite" else postgres_migrations()
    return [(no, name, 64) for no, name, _ in made]


def test_everything_is_there_after_opening_again(reopened: Callable[[], Store]) -> None:
    bench = Bench(reopened())
    lease = bench.turn(input='"' + "x" * 70_000 + '"').lease
    bench.record(lease, 1, ActionScheduled("m:f"))
    bench.do(c.Say(lease, 0, (("stdout", "hi"),)))
    (last,) = bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s"),))).run_ids
    before, last_no = snapshot(bench.store), bench.run(last).no
    bench.close()
    again = Bench(reopened(), clock=bench.clock, name="another")
    assert snapshot(again.store) == before
    assert again.record(lease, 1, ActionScheduled("m:f")).first == 3, "a repeat gets the first answer"
    again.start("next")
    assert again.run("next").no > last_no
    again.close()


def test_numbers_stay_used_after_deletion_and_opening_again(reopened: Callable[[], Store]) -> None:
    bench = Bench(reopened())
    deleted = bench.start("a").run_no
    bench.do(c.Terminate("a"))
    bench.clock.tick(31 * 86_400_000)
    bench.do(c.Prune())
    bench.close()
    again = Bench(reopened(), clock=bench.clock)
    assert again.start("b").run_no > deleted
    again.close()


def test_migrations_are_applied_once_and_noted(reopened: Callable[[], Store], tmp_path: Path) -> None:
    store = reopened()
    store.migrate()
    reopened()
    assert ledger(tmp_path) == whole(store)


def test_many_may_migrate_at_once(reopened: Callable[[], Store], tmp_path: Path) -> None:
    store, *_ = at_once(*[reopened] * 4)
    assert ledger(tmp_path) == whole(store)


def test_processes_may_migrate_at_once(reopened: Callable[[], Store], tmp_path: Path) -> None:
    url = durable_url(tmp_path / "s.sqlite")
    script = f"""if True:
        from stepwell.model.settings import Settings
        from stepwell.worker.local import open_store
        open_store({url!r}, Settings()).migrate()
    """
    processes = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert ledger(tmp_path) == whole(reopened())


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update migration set hash = 'x' where no = 1", "not what migration 1 of this program makes"),
        ("insert into migration values (999, 'future', 'x', 'now')", "newer than this program"),
    ],
)
def test_a_foreign_schema_is_refused_and_left_alone(
    reopened: Callable[[], Store], tmp_path: Path, statement: str, message: str
) -> None:
    store = reopened()
    with by_hand(tmp_path / "s.sqlite") as db:
        db.execute(statement)
    before = ledger(tmp_path)
    with pytest.raises(Unavailable, match=message) as caught:
        store.migrate()
    assert caught.value.hint
    assert ledger(tmp_path) == before

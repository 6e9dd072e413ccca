"""Copies of a database: whole, verified, and put in place without anybody's log."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stepwell.engine.doctor import Checked, examine
from stepwell.model import commands as c
from stepwell.model.errors import Exists, Invalid, StepwellError, Unavailable, Unknown
from stepwell.model.settings import Settings
from stepwell.store.port import Reader
from stepwell.store.sqlite.backup import backup, restore, verify
from stepwell.store.sqlite.sql import migrations
from stepwell.store.sqlite.store import SqliteStore
from tests.crash.support import Puppet
from tests.server.support import environ
from tests.support import Bench

pytestmark = pytest.mark.stores("sqlite")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ASIDE = "s.sqlite.replaced-20260102T030405Z"


def laws(reader: Reader) -> Iterator[str]:
    return (f"{one.who}: {one.what}" for one in examine(reader, Settings(), Checked()))


def make(path: Path, *runs: str) -> Path:
    """A database with runs, which nobody has open."""
    store = SqliteStore(path)
    store.migrate()
    with closing(Bench(store)) as bench:
        for run in runs:
            bench.start(run)
    return path


def runs(path: Path) -> set[str]:
    with closing(SqliteStore(path).reader()) as reader:
        return {run.id for run in reader.scan_runs()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"s.sqlite.lock"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "from").mkdir()
    return make(tmp_path / "from/s.sqlite", "one", "two")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A database that is in the way of a restore."""
    (tmp_path / "to").mkdir()
    return make(tmp_path / "to/s.sqlite", "old")


def test_a_backup_is_one_file_with_everything(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "new/folder/b.sqlite"
    size = backup(source, target, progress=lambda done, total: told.append((done, total)))
    assert (size, names(target.parent)) == (target.stat().st_size, {"b.sqlite"})
    assert told[-1][0] == told[-1][1] > 0
    found = verify(target, laws)
    assert (found.ok, found.migrations) == (True, [no for no, _, _ in migrations()])
    assert names(target.parent) == {"b.sqlite"}
    assert runs(target) == {"one", "two"}


def test_a_backup_replaces_nothing_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.write_text("precious")
    with pytest.raises(Exists, match="exists"):
        backup(source, target)
    assert target.read_text() == "precious"
    backup(source, target, force=True)
    assert verify(target, laws).ok
    with pytest.raises(Invalid, match="the database itself"):
        backup(source, source, force=True)
    assert names(tmp_path) == {"b", "from"}


def test_a_file_that_comes_while_a_backup_is_made_is_not_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b"
    with pytest.raises(Exists):
        backup(source, target, progress=lambda _, __: target.touch())
    assert target.read_bytes() == b""
    assert names(tmp_path) == {"b", "from"}


def test_a_backup_that_stops_leaves_nothing(source: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: int, __: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        backup(source, tmp_path / "b", progress=stop)
    assert names(tmp_path) == {"from"}
    assert runs(source) == {"one", "two"}


def test_a_backup_holds_one_moment_and_ends_while_others_commit(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two pages somebody commits: a copy that began anew each time would never end."""
    monkeypatch.setattr("stepwell.store.sqlite.backup.STEP", 1)
    with Puppet(source) as puppet:
        commits = 0

        def commit(_: int, __: int) -> None:
            nonlocal commits
            commits += 1
            puppet.one(c.StartRun(f"meanwhile {commits}", "wf"))

        puppet.one(c.StartRun("acknowledged", "wf"))
        backup(source, tmp_path / "b", progress=commit)
        puppet.kill()
    assert commits > 10
    assert runs(tmp_path / "b") == {"one", "two", "acknowledged"}
    assert verify(tmp_path / "b", laws).ok
    assert len(runs(source)) == 3 + commits


@pytest.mark.parametrize("act", ["backup", "verify", "restore"])
@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (None, Unknown, "no database"),
        (b"", Invalid, "no database of Stepwell"),
        (b"this is no database at all" * 200, Invalid, "not a database"),
        (b"foreign", Invalid, "no database of Stepwell"),
        (b"newer", Unavailable, "newer than this program"),
        (b"changed", Unavailable, "not what migration 1"),
    ],
)
def test_what_is_no_database_of_ours_is_refused(
    tmp_path: Path, act: str, content: bytes | None, error: type[StepwellError], match: str
) -> None:
    path = tmp_path / "x"
    if content == b"foreign":
        with closing(sqlite3.connect(path)) as db:
            db.execute("create table run (no)")
    elif content in (b"newer", b"changed"):
        statement = {
            b"newer": "insert into migration values (99, 'x', 'y', 'z')",
            b"changed": "update migration set hash = 'x'",
        }
        with closing(sqlite3.connect(make(path), isolation_level=None)) as db:
            db.execute(statement[content])
        if act == "backup":  # it copies what it does not understand, as it is
            backup(path, tmp_path / "y")
            return
    elif content is not None:
        path.write_bytes(content)
    acts: dict[str, Callable[[], object]] = {
        "backup": lambda: backup(path, tmp_path / "y"),
        "verify": lambda: verify(path, laws),
        "restore": lambda: restore(path, tmp_path / "y", laws, now=NOW),
    }
    with pytest.raises(error, match=match):
        acts[act]()
    assert not (tmp_path / "y").exists()


def test_damage_and_broken_laws_are_named_and_not_restored(source: Path, tmp_path: Path) -> None:
    lawless, damaged = tmp_path / "lawless", tmp_path / "damaged"
    backup(source, lawless)
    with closing(sqlite3.connect(lawless, isolation_level=None)) as db:
        db.execute("delete from entry where run_no = 1")
    found = verify(lawless, laws)
    assert found.damage == []
    assert any("one" in offence for offence in found.offences)
    backup(source, damaged)
    with damaged.open("r+b") as file:
        file.seek(4_096 * 2)
        file.write(os.urandom(4_096 * 4))
    assert verify(damaged, laws).damage
    for bad in (lawless, damaged):
        with pytest.raises(Invalid, match="is damaged"):
            restore(bad, tmp_path / "to.sqlite", laws, now=NOW)
        assert not (tmp_path / "to.sqlite").exists()


def test_a_backup_of_an_older_stepwell_is_examined_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(migrations()[0][2])
        db.execute("create table migration (no integer primary key, name text, hash text, at text) strict")
    with closing(sqlite3.connect(make(tmp_path / "new"), isolation_level=None)) as db:
        row = db.execute("select * from migration where no = 1").fetchone()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("insert into migration values (?, ?, ?, ?)", row)
    before = path.read_bytes()
    found = verify(path, laws)
    assert (found.ok, found.migrations) == (True, [1])
    assert path.read_bytes() == before
    restore(path, tmp_path / "to.sqlite", laws, now=NOW)
    make(tmp_path / "to.sqlite", "goes on")


# ── restore ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_restoring_into_a_new_place(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep/down/s.sqlite"
    assert restore(source, target, laws, now=NOW) is None
    assert runs(target) == {"one", "two"}


def test_a_log_of_a_database_that_is_gone_is_not_applied(source: Path, there: Path) -> None:
    with Puppet(there) as puppet:
        puppet.one(c.StartRun("in the log", "wf"))
        puppet.kill()
    assert there.with_name("s.sqlite-wal").stat().st_size > 0
    there.unlink()
    restore(source, there, laws, now=NOW)
    assert runs(there) == {"one", "two"}
    assert verify(there, laws).ok
    assert f"{ASIDE}-wal" in names(there.parent)


def test_a_database_that_is_there_stays_unless_forced_and_is_kept(source: Path, there: Path) -> None:
    """Also what stood only in the log of a server that was killed is kept, and none of it comes into the new one."""
    with pytest.raises(Exists, match="exists"):
        restore(source, there, laws, now=NOW)
    with Puppet(there) as puppet:
        puppet.one(c.StartRun("in the log", "wf"))
        puppet.kill()
    aside = restore(source, there, laws, now=NOW, force=True)
    assert aside == there.with_name(ASIDE)
    assert names(there.parent) == {"s.sqlite", ASIDE}
    assert (runs(there), runs(aside)) == ({"one", "two"}, {"old", "in the log"})
    assert verify(aside, laws).ok
    assert make(there, "goes on") == there
    assert runs(there) == {"one", "two", "goes on"}
    with pytest.raises(Exists, match="replaced"):
        restore(source, there, laws, now=NOW, force=True)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_database_that_somebody_has_open_is_not_replaced(source: Path, there: Path, stopped: bool) -> None:
    with Puppet(there) as puppet:
        if stopped:
            puppet.stop()
        with pytest.raises(Unavailable, match="in use"):
            restore(source, there, laws, now=NOW, force=True)
        if stopped:
            puppet.go_on()
        puppet.one(c.StartRun("goes on", "wf"))
        puppet.close()
    assert names(there.parent) == {"s.sqlite"}
    assert runs(there) == {"old", "goes on"}
    assert restore(source, there, laws, now=NOW, force=True)


def test_somebody_who_waits_while_it_is_replaced_gets_the_new_one(
    source: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that starts at the wrong moment waits for the lock, and then neither goes on with the old file nor
    spoils the new one."""
    monkeypatch.setattr("stepwell.store.sqlite.backup.STEP", 1)
    started: list[Puppet] = []
    knocking = threading.Thread(target=lambda: started.append(Puppet(there)))

    def knock(done: int, total: int) -> None:
        if not knocking.ident:
            knocking.start()
            knocking.join(0.5)
            assert not started
            assert 0 < done < total

    restore(source, there, laws, now=NOW, force=True, progress=knock)
    knocking.join(20)
    (puppet,) = started
    with puppet:
        puppet.one(c.StartRun("after", "wf"))
        puppet.close()
    assert runs(there) == {"one", "two", "after"}
    assert verify(there, laws).ok


DIES = """
import os, signal, sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from stepwell.store.sqlite import backup

page, source, target = sys.argv[1:]
pages = count(1)
backup.STEP = 1
backup.restore(
    Path(source), Path(target), lambda _: (), now=datetime.now(UTC), force=True,
    progress=lambda *_: next(pages) == int(page) and os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_nobody_reads_or_writes_between_the_two_copies(source: Path, there: Path) -> None:
    looks = 0

    def look(_: int, __: int) -> None:
        nonlocal looks
        looks += 1
        with closing(sqlite3.connect(there, timeout=0)) as db, pytest.raises(sqlite3.OperationalError, match="locked"):
            db.execute("select count(*) from run").fetchone()

    assert restore(source, there, laws, now=NOW, force=True, progress=look)
    assert looks >= 2


def test_a_kill_in_a_restore_leaves_the_old_or_the_new(source: Path, there: Path, tmp_path: Path) -> None:
    """Killed after any page, what is there opens as the one or the other."""
    ends: set[frozenset[str]] = set()
    for page in range(1, 60, 6):
        target = tmp_path / str(page) / "s.sqlite"
        target.parent.mkdir()
        shutil.copyfile(there, target)
        done = subprocess.run([sys.executable, "-c", DIES, str(page), str(source), str(target)], env=environ())
        assert done.returncode in (0, -signal.SIGKILL)
        make(target)
        assert verify(target, laws).ok
        ends.add(frozenset(runs(target)))
    assert ends <= {frozenset({"old"}), frozenset({"one", "two"})}
    assert frozenset({"old"}) in ends


def test_what_is_no_database_is_moved_out_of_the_way_when_forced(source: Path, there: Path) -> None:
    there.write_bytes(b"garbage" * 1_000)
    there.with_name("s.sqlite-wal").write_bytes(b"more garbage")
    aside = restore(source, there, laws, now=NOW, force=True)
    assert aside is not None
    assert aside.read_bytes() == b"garbage" * 1_000
    assert runs(there) == {"one", "two"}


def test_a_backup_is_not_restored_over_itself(source: Path) -> None:
    with pytest.raises(Invalid, match="itself"):
        restore(source, source, laws, now=NOW, force=True)

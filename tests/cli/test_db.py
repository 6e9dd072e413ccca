"""Backup, restore and verify as commands, and a drill: a server under load, killed, and back from its backup."""

import signal
import threading
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE_S, Shop
from tests.server.support import OK, Server, as_bytes, database, flow, lawful, serving

pytestmark = pytest.mark.stores("sqlite")


def test_a_backup_is_verified_and_restored(shop: Shop) -> None:
    shop.fire("one")
    backup, db = shop.cwd / "b.sqlite", database(shop.cwd)
    made = shop.json("db", "backup", "b.sqlite")
    assert made == {"database": str(db), "backup": str(backup), "bytes": backup.stat().st_size}
    for args in ([], ["b.sqlite"]):
        found = shop.json("db", "verify", *args)
        assert (found["ok"], found["damage"], found["offences"], found["migrations"][0]) == (True, [], [], 1)
    shop.fire("two")
    assert "--force" in shop.refused("db", "backup", "b.sqlite")
    assert "--force" in shop.refused("db", "restore", "b.sqlite")
    done = shop.json("db", "restore", "b.sqlite", "--force")
    assert (done["database"], Path(done["replaced"]).name[:25]) == (str(db), "stepwell.sqlite.replaced-")
    assert [event["id"] for event in shop.json("events", "list")["events"]] == ["one"]
    old = shop.json("events", "list", "--db", done["replaced"])["events"]
    assert [event["id"] for event in old] == ["two", "one"]
    assert "replaced" not in shop.json("db", "restore", "b.sqlite", "--data-dir", "another")  # absent, not null
    text = shop.ok("db", "restore", "--no-json", "b.sqlite", "--data-dir", "elsewhere")
    assert "elsewhere/stepwell.sqlite" in text
    assert "all well" in shop.ok("db", "verify", "--no-json", "--data-dir", "elsewhere")
    shop.fire("three")
    lawful(shop.cwd)


def test_what_is_wrong_is_said_with_a_hint(shop: Shop) -> None:
    shop.fire()
    db = database(shop.cwd)
    for args in (
        ["backup", "b", "--data-dir", "nowhere"],
        ["verify", "nothing"],
        ["verify", "event.json"],
        ["restore", "event.json", "--data-dir", "new"],
        ["verify", "--db", "memory:"],
        ["backup", str(db), "--force"],
        ["backup", "event.json/b"],
    ):
        shop.refused("db", *args)
    assert not (shop.cwd / "new").exists()


def test_broken_laws_and_damage_end_with_1(shop: Shop) -> None:
    import sqlite3
    from contextlib import closing

    shop.fire()
    shop.ok("db", "backup", "b")
    with closing(sqlite3.connect(shop.cwd / "b", isolation_level=None)) as db:
        db.execute("delete from entry where seq = 2")
    found = shop.json("db", "verify", "b", code=1)
    assert found["offences"][0].startswith("law 1: ")
    assert "NOT well" in shop.ok("db", "verify", "--no-json", "b", code=1)
    assert "is damaged" in shop.refused("db", "restore", "b", "--data-dir", "new")


def test_the_database_of_a_server_is_not_replaced(shop: Shop) -> None:
    shop.fire("before")
    shop.ok("db", "backup", "b")
    with serving(shop.cwd) as server:
        assert "in use" in shop.refused("db", "restore", "b", "--force")
        assert shop.json("db", "verify")["ok"]
        server.ended(server.send("after")["runIds"][0])
    lawful(shop.cwd)


class Load:
    """Sends events, one after the other, until the server is gone; `sent` are those that were acknowledged."""

    def __init__(self, server: Server, name: str) -> None:
        self.sent: list[str] = []
        self._server, self._name = server, name
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        for number in range(100_000):
            event_id = f"{self._name}-{number}"
            try:
                answer = self._server.ask("POST", "/events", as_bytes({"id": event_id, "type": "demo"}))
            except OSError:
                return
            assert answer.status == 202, answer
            with self._more:
                self.sent.append(event_id)
                self._more.notify_all()

    def until(self, count: int) -> list[str]:
        """What was acknowledged, once it is so much."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.sent) >= count, PATIENCE_S)
            return list(self.sent)

    def end(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_a_drill(tmp_path: Path) -> None:
    """What was acknowledged before the backup began is there after the restore, nothing is broken, and runs go on."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        flow(folder, steps={"go": f"sleep 0.2; {OK}"})
    shop = Shop(old)
    server = Server(old, "--slots", "2")
    loads = [Load(server, f"load{number}") for number in range(3)]
    before = [event_id for load in loads for event_id in load.until(12)]
    shop.ok("db", "backup", str(tmp_path / "b"))
    for load in loads:
        load.until(len(load.sent) + 10)
    server.kill()
    for load in loads:
        load.end()
    assert shop.json("db", "verify", str(tmp_path / "b"))["ok"]
    shop.ok("db", "restore", str(tmp_path / "b"), "--cwd", str(new))
    lawful(new)
    waiting = Shop(new).json("runs", "list", "--status", "queued", "--limit", "500")["runs"]
    assert len(waiting) > 2
    flow(new)  # the same, only quicker
    with serving(new) as restored:
        for event_id in before:
            assert restored.ask("GET", f"/events/{event_id}").status == 200, event_id
        again = restored.send(before[-1], {})
        assert (again["status"], len(again["runIds"])) == ("duplicate", 1)
        for run in waiting:
            assert restored.ended(run["id"])["status"] == "completed"
    lawful(new)
    assert server.process.returncode == -signal.SIGKILL

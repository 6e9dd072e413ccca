"""A SQLite store whose sessions fail on command, and a gate that keeps a lane busy."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.kernel.unit import Unit
from stepwell.store.port import NOTHING, Ahead, Refused, Unknowable
from stepwell.store.sqlite.session import SqliteSession
from stepwell.store.sqlite.store import SqliteStore

Plan = Callable[[str, Any], None]


class FaultySession(SqliteSession):
    """Asks `plan` before every begin, flush and commit; `lost` commits lose their answer, before or after the act."""

    plan: Plan = staticmethod(lambda act, unit: None)
    lost: tuple[str, ...] = ()

    def begin(self, ahead: Ahead = NOTHING) -> None:
        self.plan("begin", None)
        super().begin(ahead)

    def flush(self, unit: Unit, now: int) -> None:
        self.plan("flush", unit)
        super().flush(unit, now)

    def commit(self) -> None:
        self.plan("commit", self._unit)
        how, self.lost = (self.lost[0], self.lost[1:]) if self.lost else ("", ())
        if how == "before":
            self._db.execute("rollback")
            self._unlock()
            raise Unknowable("the connection was cut before the commit")
        super().commit()
        if how == "after":
            raise Unknowable("the connection was cut after the commit")


class FaultyStore(SqliteStore):
    """Opens faulty sessions; `sessions` has them."""

    def __init__(self, folder: Path, plan: Plan | None = None) -> None:
        super().__init__(folder / "faulty.sqlite", sync="normal")
        self.plan = plan
        self.lost: tuple[str, ...] = ()
        self.sessions: list[FaultySession] = []

    def session(self, lane: str) -> SqliteSession:
        plain = super().session(lane)
        session = FaultySession(self.connect, plain._lock, lane)
        plain._db.close()
        if self.plan is not None:
            session.plan = self.plan
        session.lost = self.lost
        self.sessions.append(session)
        return session


def wait_until(true: Callable[[], bool]) -> None:
    """For a thread: returns when it is so."""
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


def refuse_run(run_id: str) -> Plan:
    """A store that will not have this run."""

    def plan(act: str, unit: Any) -> None:
        if act == "flush" and any(row.id == run_id for row in unit.runs.rows.values()):
            raise Refused(f"constraint of {run_id}")

    return plan


class Gate:
    """A fault point that stops the lane at `begun` until it is opened."""

    def __init__(self) -> None:
        self.shut = threading.Event()
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self, point: str) -> None:
        if point == "begun" and not self._open.is_set():
            self.reached.set()
            assert self._open.wait(20)

"""The parent's side: puppets, and what is looked at in a file that nobody has open any more."""

import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from stepwell.engine.doctor import Checked, examine
from stepwell.model import commands as c
from stepwell.model.rows import Entry
from stepwell.model.settings import Settings
from tests.crash.puppet import pack, unpack
from tests.support import by_hand, durable, on_postgres
from tests.support.nursery import Fork

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
T0 = 1_700_000_000_000
SETTINGS = Settings(poll_ms=50, lease_ms=10_000, lost_leases=1_000, event_retention_days=1)


class Died(Exception):
    """The puppet has ended; `answered` is what it had answered to the request: (index, reply)."""

    def __init__(self, answered: dict[int, Any]) -> None:
        super().__init__(f"died after {len(answered)} answers")
        self.answered = answered


def start_child(module: str, *args: str, **streams: Any) -> subprocess.Popen[bytes]:
    """A process of its own, with this tree's code."""
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return Fork([sys.executable, "-m", module, *args], cwd=ROOT, env={**os.environ, **paths}, **streams)


class Puppet:
    """A process with an engine on a file. `now`: its clock stands there, until it is told another time."""

    def __init__(
        self,
        path: Path,
        *,
        settings: Settings = SETTINGS,
        roles: bool = False,
        now: int | None = None,
        busy_ms: int = 10_000,
    ) -> None:
        how = {"path": path, "settings": settings, "roles": roles, "now": now, "busy_ms": busy_ms}
        config = pack(how).decode().strip()
        self.process = start_child("tests.crash.puppet", config, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()
        self.longest_wait_s = 0.0
        assert self.read()[0] == "here"

    def _read_all(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def read(self, patience_s: float = PATIENCE_S) -> Any:
        """The next answer; `Died` when there will be none, `queue.Empty` when it takes too long."""
        line = self._lines.get(timeout=patience_s)
        if not line.endswith(b"\n"):
            raise Died({})
        return unpack(line)

    def send(self, verb: str, *rest: Any) -> None:
        """Tells the child something, without waiting for an answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(pack((verb, *rest)))
            self.process.stdin.flush()
        except BrokenPipeError as gone:
            raise Died({}) from gone

    def tell(self, verb: str, *rest: Any) -> Any:
        """Tells the child something and waits for its answer."""
        self.send(verb, *rest)
        return self.read()

    def replies(self, count: int, patience_s: float = PATIENCE_S) -> list[Any]:
        """The replies of commands that were sent together."""
        answered: dict[int, Any] = {}
        try:
            while len(answered) < count:
                _, index, reply, took_s = self.read(patience_s)
                answered[index] = reply
                self.longest_wait_s = max(self.longest_wait_s, took_s)
        except Died as died:
            raise Died(answered) from died
        return [answered[index] for index in range(count)]

    def submit(self, *commands: c.Command) -> list[Any]:
        """Sends commands that form one batch; the replies, errors among them."""
        self.send("submit", commands)
        return self.replies(len(commands))

    def one(self, command: c.Command) -> Any:
        """The reply of one command, which must not be refused."""
        reply = self.submit(command)[0]
        assert not isinstance(reply, Exception), reply
        return reply

    def fault(self, point: str, left: int = 1, number: signal.Signals = signal.SIGKILL) -> None:
        """Arms a signal to itself, at the n-th time from now that the lane comes to a point."""
        self.tell("fault", point, left, number)

    def clock(self, now: int) -> None:
        self.tell("clock", now)

    def trouble(self) -> str | None:
        why: str | None = self.tell("state")[1]
        return why

    def stop(self) -> None:
        """SIGSTOP, and not before the process stands still."""
        self.process.send_signal(signal.SIGSTOP)
        self.stands()

    def stands(self) -> None:
        """Waits until it stands still; only a parent is told so, and that is the nursery."""
        state, until = Path(f"/proc/{self.process.pid}/stat"), time.monotonic() + PATIENCE_S
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < until, "it goes on"
            time.sleep(0.001)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Waits until the process is gone; its exit status, negative for a signal."""
        self._reader.join(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with _broken_is_fine():
                    pipe.close()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Lets it end in order."""
        assert self.process.stdin is not None
        with _broken_is_fine():
            self.process.stdin.close()
        assert self.ended() == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.kill()
        else:
            self.ended()


@contextmanager
def _broken_is_fine() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        return


def offences(path: Path, settings: Settings = SETTINGS) -> list[Any]:
    """What the doctor says, and SQLite about its own file."""
    with closing(durable(path).reader()) as reader:
        found: list[Any] = list(examine(reader, settings, Checked()))
    if on_postgres():
        return found
    with by_hand(path) as connection:
        found += [row[0] for row in connection.execute("pragma integrity_check") if row[0] != "ok"]
    return found


def journal(path: Path, run: int | str) -> list[Entry]:
    """All entries of a run, by its number or its id: two lanes give out numbers in no order."""
    with closing(durable(path).reader()) as reader:
        found = reader.run("main", run) if isinstance(run, str) else reader.run_by_no(run)
        return reader.entries(found.no, limit=1_000_000) if found else []


def kinds(path: Path, run: int | str) -> list[str]:
    """The kinds of all entries of a run."""
    return [entry.kind for entry in journal(path, run)]


def dump(path: Path, *, without: frozenset[str] = frozenset()) -> dict[str, list[Any]]:
    """Every row of every table, the app's among them, but who the lanes are and when tables were made."""
    apart = {"lane", "migration", "app_migration"} | without
    with closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {
            name: sorted(connection.execute(f'select * from "{name}"').fetchall(), key=repr)
            for name in names
            if name not in apart
        }

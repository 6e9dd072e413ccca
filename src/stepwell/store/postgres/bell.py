"""Processes on one database hear of each other's commits at once, by NOTIFY: hints, since a connection may be lost.

A commit with a NOTIFY holds a lock of the whole server until it is on the disk, so commits of lanes have none. A thread
says what there is to say in transactions of its own, which write nothing.
"""

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Callable, Sequence

import psycopg

from stepwell.store.postgres.connection import Connect, Db
from stepwell.store.postgres.sql import sql

log = logging.getLogger("stepwell.postgres")
#: What is said within so long is said together: so many commits a second cost no more than a few notifications.
GAP_S = 0.01
#: How long it takes to try again after the connection was lost.
RETRY_S = 1.0
#: How long the last words of a process may take.
CLOSE_S = 2.0
Told = Callable[[str], None]
Say = Callable[[], Sequence[str]]


class Bell:
    """`told` hears each text that others said, and "" when something may have been missed. `say` gives what to say.

    Both are called on the bell's own thread. `listens`: not behind a pooler, which forgets who listens.
    """

    def __init__(self, connect: Connect, told: Told, say: Say, *, listens: bool) -> None:
        self._connect, self._told, self._say, self._listens = connect, told, say, listens
        self.hears = False
        self._rung = False
        self._closing = threading.Event()
        self._ear, self._mouth = socket.socketpair()
        self._thread = threading.Thread(target=self._main, name="stepwell-bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """There is something to say. From any thread; never waits."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):  # it is closed: nobody says anything any more
                self._mouth.send(b"r")

    def close(self) -> None:
        """Says what there is, and ends."""
        self._closing.set()
        self._rung = False
        self.ring()
        self._thread.join(CLOSE_S)
        self._mouth.close()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        while not self._closing.is_set():
            try:
                with contextlib.closing(self._connect()) as db:
                    self._serve(db)
            except psycopg.Error as error:
                log.debug("the bell is silent: %s", error)
            finally:
                self.hears = False
            if not self._closing.is_set():
                self._closing.wait(RETRY_S)
        self._ear.close()

    def _serve(self, db: Db) -> None:
        db.add_notify_handler(lambda one: self._hear(db, one.pid, one.payload))
        channel = db.execute(sql("bell/channel")).fetchall()[0][0]
        if self._listens:
            db.execute(f'listen "{channel}"', prepare=False)
            self.hears = True
            self._told("")
        poll = select.poll()
        for end in (db, self._ear):
            poll.register(end.fileno(), select.POLLIN)
        while not self._closing.is_set():
            heard = [ready for ready, _ in poll.poll()]
            if db.fileno() in heard:
                self._hear_all(db)
            if self._ear.fileno() in heard:
                self._speak(db, channel)
                self._closing.wait(GAP_S)

    def _speak(self, db: Db, channel: str) -> None:
        self._ear.recv(64)
        self._rung = False  # what comes from here on rings again
        for text in self._say():
            db.execute(sql("bell/ring"), (channel, text))

    def _hear_all(self, db: Db) -> None:
        db.pgconn.consume_input()
        while (one := db.pgconn.notifies()) is not None:
            self._hear(db, one.be_pid, one.extra.decode())

    def _hear(self, db: Db, pid: int, text: str) -> None:
        if pid != db.info.backend_pid:
            self._told(text)

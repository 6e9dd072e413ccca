"""A connection as every session and reader uses it."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper

from stepwell.store.postgres.sql import sql

Db: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Connect: TypeAlias = Callable[[], Db]
#: Statements that a connection keeps prepared: more than there are.
PREPARED = 500
#: What the server shows of connections.
NAME = "stepwell"
#: A host that is gone without a word is noticed within half a minute, and not after two hours.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "fallback_application_name": NAME,
}
# Plans that were made while the tables were empty do harm when they are not (kernel-throughput 3), and compiling a
# statement that takes a tenth of a millisecond only because a row count was guessed wrong takes a hundred.
_SETTINGS = "set plan_cache_mode = force_custom_plan; set jit = off; set idle_in_transaction_session_timeout = {}"


def connect(conninfo: str, opened: Callable[[Db], None], *, pooled: bool, idle_ms: int, lane: str = "") -> Db:
    """Opens a connection; each statement is its own transaction until one begins. Raises psycopg's errors.

    `opened` is given it before anything is asked on it, since a server that stands still does not answer; it may raise.
    `pooled`: there is a pooler in between that changes the server's connection after each transaction: nothing is
    prepared, nothing is set. `idle_ms`: how long a transaction may stand still until the server ends it, since its
    process may have been stopped. `lane`: whose it is; the server shows it, unless the address names the application.
    """
    db = psycopg.connect(
        make_conninfo("", **{**_DEFAULTS, **conninfo_to_dict(conninfo)}),
        autocommit=True,
        cursor_factory=psycopg.RawCursor,
        prepare_threshold=None if pooled else 0,
    )
    try:
        opened(db)
        db.prepared_max = PREPARED
        db.adapters.register_dumper(int, Int8Dumper)  # one type for all, or each statement is prepared for many
        if not pooled:
            db.execute(_SETTINGS.format(idle_ms), prepare=False)
            if lane:
                db.execute(sql("lane/name"), (NAME, lane), prepare=False)
    except BaseException:
        db.close()
        raise
    return db


def cut(db: Db) -> None:
    """From any thread: whoever waits for an answer on a connection hears that it is lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(db.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)

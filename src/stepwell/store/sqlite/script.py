"""Scripts of SQL, a statement at a time, in a transaction that excludes everybody."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exclusive(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that nobody else writes or reads beside."""
    connection.execute("begin exclusive")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    connection.execute("commit")


def statements(script: str) -> Iterator[str]:
    """The statements of a script; the last one may lack its semicolon."""
    statement = ""
    *parts, rest = script.split(";")
    for part in parts:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if (statement + rest).strip():
        yield (statement + rest).strip()

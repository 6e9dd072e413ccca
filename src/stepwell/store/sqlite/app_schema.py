"""The app's own migrations on a SQLite connection: forward only, each in a transaction, under the guard."""

import sqlite3
from collections.abc import Sequence

from stepwell.kernel.calls import Away, Forbidden
from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.app_ledger import refuse_edits
from stepwell.store.port import AppMigration
from stepwell.store.sqlite.guarded import Guarded
from stepwell.store.sqlite.script import exclusive, statements
from stepwell.store.sqlite.sql import sql


def apply_migrations(connection: sqlite3.Connection, app: str, given: Sequence[AppMigration]) -> list[int]:
    """Applies what is missing; answers the numbers. `connection` is used for nothing else."""
    guarded = Guarded(connection, "schema")
    try:
        refuse_edits(app, dict(connection.execute(sql("ledger/app_applied"), (app,))), given)
        return [one.no for one in given if _apply(connection, guarded, app, one)]
    except sqlite3.Error as error:
        raise Unavailable(f"the tables of {app} cannot be brought up to date: {error}") from error


def _apply(connection: sqlite3.Connection, guarded: Guarded, app: str, one: AppMigration) -> bool:
    """Whether it was this process that applied the migration."""
    with exclusive(connection):
        if one.no in dict(connection.execute(sql("ledger/app_applied"), (app,))):
            return False
        if "sqlite_sequence" in one.script.lower():
            raise Invalid(f"migration {one.name} of {app} names sqlite_sequence", hint="That table is SQLite's own.")
        for statement in statements(one.script):
            _run(guarded, app, one, statement)
        connection.execute(sql("ledger/app_add"), (app, one.no, one.name, one.hash))
    return True


def _run(guarded: Guarded, app: str, one: AppMigration, statement: str) -> None:
    what = f"migration {one.name} of {app}"
    try:
        guarded.execute(statement, (), 1)
    except Forbidden as refused:
        raise Invalid(f"{what} {refused}", hint="An app makes tables of its own, with names of its own.") from refused
    except Away as away:
        raise Unavailable(f"{what} cannot be applied: {away}") from away
    except sqlite3.Error as error:
        at = " ".join(statement.split())[:120]
        raise Invalid(f"{what} is refused by SQLite: {error}, at: {at}", hint="Correct the script.") from error

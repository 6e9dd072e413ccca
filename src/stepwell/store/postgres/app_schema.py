"""The app's own migrations on PostgreSQL: forward only, each in a transaction, in a schema of their own."""

from collections.abc import Sequence

import psycopg

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.app_ledger import refuse_edits
from stepwell.store.port import AppMigration
from stepwell.store.postgres.app_rules import kernel_names, why_not
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.home import MAX_NAME_BYTES, Home, quoted, read_home
from stepwell.store.postgres.sql import sql
from stepwell.store.postgres.tokens import statements, tokens

#: Where a migration meets what it did not make: the name of a table, of its type, or of a schema.
_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
OWN_NAMES = "An app makes tables of its own, with names of its own."


def apply_migrations(db: Db, app: str, given: Sequence[AppMigration]) -> list[int]:
    """Applies what is missing; answers the numbers. Whoever comes second waits, and finds it done."""
    try:
        home = read_home(lambda text: db.execute(text.encode()).fetchall())
        if len(home.app.encode()) > MAX_NAME_BYTES:
            raise Invalid(f"the schema {home.kernel!r} has too long a name", hint="The app's is it with _app after it.")
        refuse_edits(app, _applied(db, app), given)
        done = [one.no for one in given if _apply(db, home, app, one)]
        if given and home.role is not None:
            _grant(db, home)
    except _LOST as error:
        raise Unavailable(f"the tables of {app} cannot be brought up to date: {str(error).strip()}") from error
    return done


def _applied(db: Db, app: str) -> dict[int, str]:
    return dict(db.execute(sql("ledger/app_applied"), (app,)).fetchall())


def _apply(db: Db, home: Home, app: str, one: AppMigration) -> bool:
    """Whether it was this process that applied the migration."""
    with db.transaction():
        db.execute(sql("ledger/app_lock"))
        if one.no in _applied(db, app):
            return False
        _make_schema(db, home)
        db.execute(sql("app/enter"), (home.path, "0", "0"))
        for statement in statements(one.script):
            _run(db, home, f"migration {one.name} of {app}", statement)
        db.execute(sql("app/leave"))
        db.execute(sql("ledger/app_add"), (app, one.no, one.name, one.hash))
    return True


def _make_schema(db: Db, home: Home) -> None:
    """Only if it is not there: a DBA may have made it for a user who may not."""
    if not db.execute(sql("app/exists"), (home.app,)).fetchall()[0][0]:
        try:
            db.execute(f"create schema {quoted(home.app)}", prepare=False)
        except psycopg.errors.InsufficientPrivilege as error:
            hint = f"A DBA may do it: create schema {quoted(home.app)} authorization {quoted(db.info.user)}"
            raise Unavailable(f"cannot make the schema of the app's tables: {error}", hint=hint) from error


def _run(db: Db, home: Home, what: str, statement: str) -> None:
    why = why_not(tokens(statement), "schema", home.kernel)
    if why is not None:
        raise Invalid(f"{what} {why}", hint=OWN_NAMES)
    try:
        db.execute(statement, prepare=False)
    except _LOST:
        raise
    except psycopg.Error as error:
        said = str(error).strip()
        if isinstance(error, psycopg.errors.UndefinedTable) and kernel_names() & set(said.replace('"', " ").split()):
            raise Invalid(f"{what} may not use what is the kernel's: {said}", hint=OWN_NAMES) from error
        at = " ".join(statement.split())[:120]
        raise Invalid(f"{what} is refused by PostgreSQL: {said}, at: {at}", hint="Correct the script.") from error


def _grant(db: Db, home: Home) -> None:
    """The app's role may use what the migrations made."""
    with db.transaction():
        db.execute(sql("ledger/app_lock"))
        script = sql("app/grant").replace("$1", quoted(home.app)).replace("$2", quoted(home.role or ""))
        db.execute(script, prepare=False)

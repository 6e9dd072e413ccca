"""The ledger of a PostgreSQL schema: which migrations it has had, and whether this program may use it."""

import hashlib
from collections.abc import Mapping

import psycopg

from stepwell.model.errors import Invalid, Unavailable
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.sql import migrations, sql

#: The number of the row that says that a copy into this database is under way, or broke off.
COPYING = 0
MIGRATE_TRIES = 5
#: What the one who comes second hears: of the table's name, of its type, or of a row of the catalogue.
_MADE_AT_ONCE = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)


def migrate(db: Db, url: str, *, copying: bool = False) -> list[str]:
    """Applies what is missing, all in one transaction; answers the names. Who comes second waits, and finds it done.

    `copying`: a copy that broke off is no hindrance. Raises `Unavailable` for a schema that is not this program's.
    """
    scripts = migrations()
    if has_ledger(db):
        known = read(db, url)
        refuse_foreign(known, url, copying=copying)
        if len(hashes(known)) == len(scripts):
            return []
    _make_ledger(db)
    with db.transaction():
        db.execute(sql("ledger/lock"))
        known = read(db, url)
        refuse_foreign(known, url, copying=copying)
        missing = [one for one in scripts if one[0] not in known]
        for no, name, script in missing:
            _apply(db, url, name, script)
            db.execute(sql("ledger/add"), (no, name, digest(script)))
    return [name for _, name, _ in missing]


def _apply(db: Db, url: str, name: str, script: str) -> None:
    try:
        db.execute(script, prepare=False)
    except _MADE_AT_ONCE as error:
        raise Unavailable(
            f"{url} has tables of migration {name}, and no row of it in its ledger: {error.diag.message_primary}",
            hint="Undo what was applied by hand, or apply all of what `stepwell db migrate --print` prints.",
        ) from error


def has_ledger(db: Db) -> bool:
    """Whether there is one in the schema."""
    return bool(db.execute(sql("ledger/exists")).fetchall()[0][0])


def read(db: Db, url: str) -> dict[int, tuple[str, str]]:
    """(name, hash) of every row by its number. Raises `Invalid` for a table of that name that is somebody else's."""
    try:
        return {no: (name, found) for no, name, found in db.execute(sql("ledger/applied")).fetchall()}
    except psycopg.errors.UndefinedColumn as error:
        hint = "Use a database, or a schema (?options=-csearch_path=NAME), of its own."
        raise Invalid(f"{url} is no database of Stepwell: its table `migration` is another one", hint=hint) from error


def hashes(known: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """The migrations among the rows, with their hashes."""
    return {no: found for no, (_, found) in known.items() if no != COPYING}


def refuse_foreign(known: Mapping[int, tuple[str, str]], url: str, *, copying: bool = False) -> None:
    """Raises `Unavailable` for a schema that is newer, that another program made, or that a copy is filling."""
    if COPYING in known and not copying:
        raise Unavailable(
            f"a copy of {known[COPYING][0]} into {url} is under way, or broke off",
            hint="Wait for its end; if it broke off, start it again: nothing of it is there.",
        )
    ours = {no: digest(script) for no, _, script in migrations()}
    for no, found in hashes(known).items():
        if ours.get(no) != found:
            what = "newer than this program" if no > max(ours) else f"not what migration {no} of this program makes"
            raise Unavailable(
                f"the schema of {url} is {what}",
                hint="Run the version of Stepwell that wrote it, or restore a backup made before.",
            )


def need_ours(db: Db, url: str) -> None:
    """Raises `Invalid` when it is no database of Stepwell."""
    if not has_ledger(db):
        hint = "Name the database that `stepwell serve` uses, with its schema."
        raise Invalid(f"{url} is no database of Stepwell", hint=hint)


def need_current(db: Db, url: str) -> None:
    """Raises `Unavailable` unless every migration was applied, and `Invalid` when it is no database of Stepwell."""
    need_ours(db, url)
    known = read(db, url)
    refuse_foreign(known, url)
    missing = len(migrations()) - len(hashes(known))
    if missing:
        hint = "Bring it up to date: stepwell db migrate --db URL"
        raise Unavailable(f"{url} is of an older Stepwell, {missing} migrations behind", hint=hint)


def _make_ledger(db: Db) -> None:
    """Two who create a table at once may both find that it is not there: the second one is refused, and looks again."""
    for _ in range(MIGRATE_TRIES):
        try:
            db.execute(sql("ledger/create"))
        except _MADE_AT_ONCE:
            continue
        return


def digest(script: str) -> str:
    """What the ledger keeps of a script."""
    return hashlib.sha256(script.encode()).hexdigest()

"""`stepwell db migrate` and `stepwell db status`."""

from contextlib import closing
from typing import Any

import click
import msgspec

from stepwell.cli.app import app_option, load_app
from stepwell.cli.common import Place, clean, json_option, print_json, print_table, with_place
from stepwell.cli.databases import Database, database
from stepwell.functions.migrations import read_migrations
from stepwell.model.errors import Invalid
from stepwell.store.port import AppMigration, Store
from stepwell.store.sqlite.status import status_of as file_status
from stepwell.store.status import Status
from stepwell.worker.local import open_store

SCOPE = "main"


@click.command("migrate")
@app_option
@click.option("--print", "as_sql", is_flag=True, help="Print the SQL for a DBA instead, and change nothing.")
@json_option
@with_place
def migrate_(place: Place, app: str | None, as_sql: bool, as_json: bool) -> None:
    """Bring the schema of the database up to date, and with --app the app's tables.

    Servers do so themselves when they start; this is for those whose user may not, and for a new database.
    """
    at = database(place.url, place.settings)
    loaded = load_app(app, place.cwd)
    folder = None if loaded is None else loaded.migrations
    name = "" if loaded is None else loaded.name
    if as_sql:
        click.echo(_script(at, name, [] if folder is None else read_migrations(folder, "postgres")), nl=False)
        return
    with closing(open_store(at.url, place.settings)) as store:
        missing = _missing(at)
        store.migrate()
        made = [] if folder is None else store.migrate_app(name, read_migrations(folder, store.dialect))
    if as_json:
        print_json({"database": at.shown, "applied": missing, "app": made})
        return
    done = [*missing, *(f"migration {no} of {name}" for no in made)]
    click.echo(f"{clean(at.shown)}: {', '.join(done) if done else 'is up to date'}")


def _script(at: Database, app: str, migrations: list[AppMigration]) -> str:
    if at.path is not None:
        raise Invalid("--print is for PostgreSQL: a SQLite file needs no DBA", hint="Name a database with --db URL.")
    store = at.postgres()
    from stepwell.store.postgres.script import script_of

    return script_of(store.schema, app, migrations)


def _missing(at: Database) -> list[str]:
    """What a migration of the schema will apply, unless somebody else is quicker."""
    if at.path is not None and not (at.path.exists() and at.path.stat().st_size):
        from stepwell.store.sqlite.sql import migrations

        return [name for _, name, _ in migrations()]
    if at.path is None:
        store = at.postgres()
        from stepwell.store.postgres.sql import migrations as of_postgres
        from stepwell.store.postgres.status import is_new

        if is_new(store):
            return [name for _, name, _ in of_postgres()]
    return _status(at).schema.missing


@click.command("status")
@json_option
@with_place
def status_(place: Place, as_json: bool) -> None:
    """Show the schema, sizes, who is connected, and what waits. Exit code 1 if a server could not start on it."""
    at = database(place.url, place.settings)
    found = _status(at)
    good = not (found.schema.missing or found.schema.refused)
    with closing(open_store(at.url, place.settings)) as store:
        now = _now(store) if good else {}
    if as_json:
        print_json({"ok": good, **_plain(found), **now})
    else:
        _print(found, now)
    if not good:
        raise click.exceptions.Exit(1)


def _status(at: Database) -> Status:
    if at.path is not None:
        return file_status(at.path)
    store = at.postgres()
    from stepwell.store.postgres.status import status_of

    return status_of(store)


def _now(store: Store) -> dict[str, Any]:
    """What waits, and which changes there are."""
    with closing(store.reader()) as reader:
        changes = {"scope": SCOPE, "floor": reader.floor(SCOPE), "head": reader.head(SCOPE)}
        due = reader.next_due()
        return {"counts": reader.counts(), "changes": changes, **({} if due is None else {"nextDueAt": due})}


def _plain(found: Status) -> dict[str, Any]:
    """Without what the store cannot tell."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    oldest = plain.pop("oldest")
    if oldest is not None:
        plain["oldest"] = {"who": oldest["who"], "ageMs": oldest["age_ms"]}
    plain["tables"] = [{key: value for key, value in one.items() if value is not None} for one in plain["tables"]]
    plain["schema"] = {key: value for key, value in plain["schema"].items() if value is not None}
    return {key: value for key, value in plain.items() if value is not None}


def _print(found: Status, now: dict[str, Any]) -> None:
    click.echo(f"{clean(found.database)}: {found.server}, {found.bytes:,} bytes")
    click.echo(f"  schema: {_schema_text(found)}")
    if found.lanes is not None:
        click.echo(f"  {found.connections} connections, {found.lanes} of them lanes of servers, workers and commands")
    if found.oldest is not None:
        click.echo(f"  oldest transaction: {clean(found.oldest.who)}, {found.oldest.age_ms / 1_000:,.1f} s")
    if now:
        counts, changes = now["counts"], now["changes"]
        click.echo(f"  {', '.join(f'{count:,} {name}' for name, count in counts.items() if count) or 'nothing open'}")
        click.echo(f"  changes of {changes['scope']}: up to {changes['head']:,}, pruned up to {changes['floor']:,}")
    rows = [[one.name, *map(_number, (one.rows, one.bytes, one.dead))] for one in found.tables]
    width = 2 if all(one.bytes is None for one in found.tables) else 4
    print_table(("TABLE", "ROWS", "BYTES", "DEAD")[:width], [row[:width] for row in rows], empty="no tables")


def _schema_text(found: Status) -> str:
    schema = found.schema
    if schema.refused is not None:
        return clean(schema.refused)
    if schema.missing:
        return f"lacks {', '.join(schema.missing)}: stepwell db migrate"
    return f"up to date, {len(schema.applied)} migrations"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"

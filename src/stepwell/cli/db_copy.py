"""`stepwell db copy`."""

import os
from pathlib import Path

import click
import msgspec

from stepwell.cli.app import app_option
from stepwell.cli.common import clean, json_option, print_json
from stepwell.cli.databases import app_tables, database
from stepwell.cli.progress import Told
from stepwell.model.settings import settings_from
from stepwell.store.copying import copy


@click.command("copy")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--live", is_flag=True, help="Copy one moment of SOURCE, though servers write to it: for a rehearsal.")
@app_option
@click.option("--without-app", is_flag=True, help="Leave the app's tables behind.")
@json_option
def copy_(source: str, target: str, live: bool, app: str | None, without_app: bool, as_json: bool) -> None:
    """Copy the database SOURCE to TARGET, which is empty: SQLite to PostgreSQL, back, or to one of its kind.

    Each is a FILE, sqlite:///FILE, or postgresql://USER@HOST/DATABASE. Ids, numbers, positions and histories stay as
    they are. All of it is copied, read back and compared, or nothing is there. Stop the servers on SOURCE before.
    Rows of the app's tables go along, into those that --app makes in TARGET.
    """
    told, settings = Told(quiet=as_json), settings_from(os.environ)
    one, other = database(source, settings), database(target, settings)
    with told, one.reading(alone=not live) as moment:
        prepare = app_tables(app, Path.cwd())
        found = copy(moment, other.writing(one.shown, prepare), told.copied, app=not without_app)
    if as_json:
        print_json({"source": one.shown, "target": other.shown, **msgspec.to_builtins(found)})
        return
    runs, entries = found.rows["run"], found.rows["entry"]
    click.echo(f"copied {clean(one.shown)} to {clean(other.shown)}: {runs:,} runs, {entries:,} entries")
    click.echo(f"  all that was committed up to position {found.position:,}; read back and compared")

"""`stepwell db backup`, `restore` and `verify`: on SQLite files as they are, on PostgreSQL through a file of SQLite.

So a backup is the same thing wherever it comes from: it can be looked at, served, verified, and restored to both.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from stepwell.cli.app import app_option
from stepwell.cli.common import Place, clean, json_option, print_json, with_place
from stepwell.cli.databases import Database, app_tables, database
from stepwell.cli.progress import Told
from stepwell.engine.doctor import Checked, examine
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.copying import Prepare, copy
from stepwell.store.port import Reader
from stepwell.store.sqlite import backup as copies
from stepwell.store.sqlite import copying as files

file_argument = click.argument("file", type=click.Path(path_type=Path))
#: Offences that are named.
NAMED = 1_000


@click.command("backup")
@file_argument
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
@with_place
def backup_(place: Place, file: Path, force: bool, as_json: bool) -> None:
    """Copy the database to FILE, as it is now; servers may run and write meanwhile."""
    source = database(place.url, place.settings)
    with Told(quiet=as_json) as told:
        if source.path is not None:
            size = copies.backup(source.path, file, force=force, progress=told.pages)
        else:
            size = _from_postgres(source, file, force, told)
    if as_json:
        print_json({"database": source.shown, "backup": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"backed up {clean(source.shown)} to {clean(str(file))}, {size:,} bytes")


def _from_postgres(source: Database, file: Path, force: bool, told: Told) -> int:
    with source.reading(alone=False) as moment:
        copy(moment, files.writing(file.absolute(), force=force, sums=True), told.copied)
    return file.stat().st_size


@click.command("restore")
@file_argument
@click.option("--force", is_flag=True, help="Replace the file that is there; it is kept as NAME.replaced-TIME.")
@app_option
@json_option
@with_place
def restore_(place: Place, file: Path, force: bool, app: str | None, as_json: bool) -> None:
    """Verify the backup FILE and put it in place of the database. Nobody may have that open.

    On PostgreSQL nothing is replaced: the database has to be new. Rows of the app's tables go into those that --app
    makes.
    """
    target = database(place.url, place.settings)
    with Told(quiet=as_json) as told:
        laws = _examiner(place.settings, told)
        aside = None
        if target.path is not None:
            now = datetime.now(UTC)
            aside = copies.restore(file, target.path, laws, now=now, force=force, progress=told.pages)
        else:
            _to_postgres(file, target, laws, app_tables(app, place.cwd), force, told)
    if as_json:
        replaced = {} if aside is None else {"replaced": str(aside)}
        print_json({"database": target.shown, "backup": str(file.absolute())} | replaced)
        return
    click.echo(f"restored {clean(target.shown)} from {clean(str(file))}")
    if aside is not None:
        click.echo(f"  what was there is now {clean(str(aside))}")


def _to_postgres(file: Path, target: Database, laws: copies.Examine, prepare: Prepare, force: bool, told: Told) -> None:
    if force:
        raise Invalid(
            "--force replaces a file, and never what is in a PostgreSQL database",
            hint="Make a new database, restore to it, and start the servers with that one.",
        )
    copies.need_sound(file, laws, told.copied)
    with copies.up_to_date(file) as current, files.reading(current, alone=False) as moment:
        copy(moment, target.writing(f"the backup {file.absolute()}", prepare), told.copied)


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@with_place
def verify_(place: Place, file: Path | None, as_json: bool) -> None:
    """Check FILE, or else the database, for damage and against every law. Exit code 1 if something is wrong."""
    place_of = database(place.url if file is None else str(file), place.settings)
    with Told(quiet=as_json) as told:
        laws = _examiner(place.settings, told)
        if place_of.path is None:
            found = _verify_postgres(place_of, laws)
        else:
            found = copies.verify(file or place_of.path, laws, told.copied)
    if as_json:
        print_json({"ok": found.ok, **msgspec.to_builtins(found)})
    else:
        click.echo(f"{clean(found.path)}: {found.bytes:,} bytes, {'all well' if found.ok else 'NOT well'}")
        for problem in (*found.damage, *found.offences):
            click.echo(f"  {clean(problem)}")
    if not found.ok:
        raise click.exceptions.Exit(1)


def _verify_postgres(place: Database, laws: copies.Examine) -> copies.Verified:
    store = place.postgres()
    from stepwell.store.postgres.copying import telling
    from stepwell.store.postgres.damage import bytes_of, damage_of
    from stepwell.store.postgres.ledger import hashes, need_current, read

    with closing(store.opened()) as db, telling(store.url):
        need_current(db, store.url)
        applied = sorted(hashes(read(db, store.url)))
        size, damage = bytes_of(db), damage_of(db)
    with closing(store.reader()) as reader:
        return copies.Verified(store.url, size, applied, damage, list(laws(reader)))


def _examiner(settings: Settings, told: Told) -> copies.Examine:
    def offences(reader: Reader) -> Iterator[str]:
        for number, one in enumerate(examine(reader, settings, Checked(), told.checked)):
            if number == NAMED:
                yield f"and more than {NAMED:,} in all"
                return
            yield f"law {one.law}: {one.who}: {one.what}"

    return offences

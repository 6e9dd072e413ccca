"""`stepwell db`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from stepwell.cli.common import Place, clean, json_option, print_json, with_place
from stepwell.cli.db_copy import copy_
from stepwell.cli.progress import Told
from stepwell.engine.doctor import Checked, examine
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.port import Reader
from stepwell.store.sqlite import backup as copies

file_argument = click.argument("file", type=click.Path(path_type=Path))
#: Offences that are named.
NAMED = 1_000


@click.group()
def db() -> None:
    """Back up, restore, verify and copy databases."""


db.add_command(copy_)


@db.command("backup")
@file_argument
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
@with_place
def backup_(place: Place, file: Path, force: bool, as_json: bool) -> None:
    """Copy the database to FILE, as it is now; servers may run and write meanwhile."""
    source = _file_of(place)
    with Told(quiet=as_json) as told:
        size = copies.backup(source, file, force=force, progress=told.pages)
    if as_json:
        print_json({"database": str(source), "backup": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"backed up {clean(str(source))} to {clean(str(file))}, {size:,} bytes")


@db.command("restore")
@file_argument
@click.option("--force", is_flag=True, help="Replace the database that is there; it is kept as NAME.replaced-TIME.")
@json_option
@with_place
def restore_(place: Place, file: Path, force: bool, as_json: bool) -> None:
    """Verify the backup FILE and put it in place of the database. Nobody may have that open."""
    target = _file_of(place)
    with Told(quiet=as_json) as told:
        laws = _examiner(place.settings, told)
        aside = copies.restore(file, target, laws, now=datetime.now(UTC), force=force, progress=told.pages)
    if as_json:
        replaced = {} if aside is None else {"replaced": str(aside)}
        print_json({"database": str(target), "backup": str(file.absolute())} | replaced)
        return
    click.echo(f"restored {clean(str(target))} from {clean(str(file))}")
    if aside is not None:
        click.echo(f"  what was there is now {clean(str(aside))}")


@db.command("verify")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@with_place
def verify_(place: Place, file: Path | None, as_json: bool) -> None:
    """Check FILE, or else the database, for damage and against every law. Exit code 1 if something is wrong."""
    with Told(quiet=as_json) as told:
        found = copies.verify(file or _file_of(place), _examiner(place.settings, told))
    if as_json:
        print_json({"ok": found.ok, **msgspec.to_builtins(found)})
    else:
        click.echo(f"{clean(found.path)}: {found.bytes:,} bytes, {'all well' if found.ok else 'NOT well'}")
        for problem in (*found.damage, *found.offences):
            click.echo(f"  {clean(problem)}")
    if not found.ok:
        raise click.exceptions.Exit(1)


def _file_of(place: Place) -> Path:
    if place.path is None:
        raise Invalid(f"{place.url} is not a file", hint="Name a database file with --db or --data-dir.")
    return place.path


def _examiner(settings: Settings, told: Told) -> copies.Examine:
    def offences(reader: Reader) -> Iterator[str]:
        for number, one in enumerate(examine(reader, settings, Checked(), told.checked)):
            if number == NAMED:
                yield f"and more than {NAMED:,} in all"
                return
            yield f"law {one.law}: {one.who}: {one.what}"

    return offences

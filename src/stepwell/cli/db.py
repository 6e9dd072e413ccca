"""`stepwell db`."""

import click

from stepwell.cli.db_backup import backup_, restore_, verify_
from stepwell.cli.db_copy import copy_
from stepwell.cli.db_schema import migrate_, status_


@click.group()
def db() -> None:
    """Migrate, back up, restore, verify and copy databases."""


for command in (migrate_, status_, backup_, restore_, verify_, copy_):
    db.add_command(command)

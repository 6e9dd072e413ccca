"""`stepwell db`."""

import click

from stepwell.cli.db_backup import backup_, restore_, verify_
from stepwell.cli.db_copy import copy_


@click.group()
def db() -> None:
    """Back up, restore, verify and copy databases."""


for command in (backup_, restore_, verify_, copy_):
    db.add_command(command)

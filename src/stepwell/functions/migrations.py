"""An app's own migrations: a folder of NNNN_name.sql, forward only."""

import hashlib
import re
from pathlib import Path

from stepwell.model.errors import Invalid, TooLarge
from stepwell.store.port import AppMigration

MAX_SCRIPT_BYTES = 1 << 20
MAX_MIGRATIONS = 9_999
_NAME = re.compile(r"(\d{4})_\w+\.sql", re.ASCII)
NAMED = "Name them NNNN_what.sql, from 0001 on: 0001_receipts.sql."


def read_migrations(folder: Path) -> list[AppMigration]:
    """The migrations of a folder, in order. Raises Invalid for names that have no order, and TooLarge."""
    if not folder.is_dir():
        raise Invalid(f"no folder {folder} with migrations", hint="Create it, or correct App(migrations=...).")
    found: dict[int, AppMigration] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".sql":
            one = _read(path)
            if one.no in found:
                raise Invalid(f"{found[one.no].name}.sql and {path.name} have one number", hint="Renumber the new one.")
            found[one.no] = one
    return [found[no] for no in sorted(found)]


def _read(path: Path) -> AppMigration:
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[1]) == 0:
        raise Invalid(f"{path.name} is no name of a migration", hint=NAMED)
    try:
        data = path.read_bytes()
        script = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path.name} cannot be read: {error}", hint="It is a text in UTF-8.") from None
    if len(data) > MAX_SCRIPT_BYTES:
        what = f"{path.name} has {len(data):,} bytes, the limit is {MAX_SCRIPT_BYTES:,}"
        raise TooLarge(what, what="migration", size=len(data), limit=MAX_SCRIPT_BYTES, hint="Split it.")
    return AppMigration(int(match[1]), path.stem, script, hashlib.sha256(data).hexdigest())

"""An app's own migrations: a folder of NNNN_name.sql, forward only.

NNNN_name.sqlite.sql and NNNN_name.postgres.sql stand for it on that store alone.
"""

import hashlib
import re
from pathlib import Path

from stepwell.model.errors import Invalid, TooLarge
from stepwell.store.port import AppMigration

MAX_SCRIPT_BYTES = 1 << 20
MAX_MIGRATIONS = 9_999
_NAME = re.compile(r"(\d{4})_\w+(?:\.(sqlite|postgres))?\.sql", re.ASCII)
NAMED = "Name them NNNN_what.sql, from 0001 on: 0001_receipts.sql; for one store alone 0001_receipts.postgres.sql."


def read_migrations(folder: Path, dialect: str) -> list[AppMigration]:
    """The migrations of a folder for a store, in order. Raises Invalid for names that have no order, and TooLarge."""
    if not folder.is_dir():
        raise Invalid(f"no folder {folder} with migrations", hint="Create it, or correct App(migrations=...).")
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".sql":
            found.setdefault(_number(path), []).append(path)
    chosen = ((no, _chosen(found[no], dialect)) for no in sorted(found))
    return [_read(no, path) for no, path in chosen if path is not None]


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[1]) == 0:
        raise Invalid(f"{path.name} is no name of a migration", hint=NAMED)
    return int(match[1])


def _chosen(files: list[Path], dialect: str) -> Path | None:
    """The file of a number for a store: its own before the one for all; None: the number is another store's."""
    by_dialect = {match[2]: path for path in files if (match := _NAME.fullmatch(path.name))}
    if len({path.name.partition(".")[0] for path in files}) > 1:
        first, second = files[0].name, files[1].name
        raise Invalid(f"{first} and {second} have one number", hint="Renumber the new one.")
    return by_dialect.get(dialect) or by_dialect.get(None)


def _read(no: int, path: Path) -> AppMigration:
    try:
        data = path.read_bytes()
        script = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path.name} cannot be read: {error}", hint="It is a text in UTF-8.") from None
    if len(data) > MAX_SCRIPT_BYTES:
        what = f"{path.name} has {len(data):,} bytes, the limit is {MAX_SCRIPT_BYTES:,}"
        raise TooLarge(what, what="migration", size=len(data), limit=MAX_SCRIPT_BYTES, hint="Split it.")
    return AppMigration(no, path.stem, script, hashlib.sha256(data).hexdigest())

"""Which rows the stores of SQL keep, and their columns."""

import msgspec

from stepwell.model import rows

ROWS: dict[str, type[msgspec.Struct]] = {
    "run": rows.Run,
    "entry": rows.Entry,
    "task": rows.Task,
    "event": rows.Event,
    "manifest": rows.Manifest,
    "pool": rows.Pool,
    "output": rows.Output,
    "blob": rows.Blob,
    "message": rows.Message,
    "request": rows.Request,
    "change": rows.Change,
}


def columns(row: str) -> list[str]:
    """The columns of a row, in order."""
    return [field.name for field in msgspec.structs.fields(ROWS[row])]

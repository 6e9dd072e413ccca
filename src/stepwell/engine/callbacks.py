"""Callbacks (`on_complete`) that failed: each is told of once its commit stands, since nobody waits for it."""

import logging

import msgspec
from msgspec import UNSET

from stepwell.kernel.unit import Unit
from stepwell.model.entries import RunCanceled, RunCompleted, RunFailed, decode_body
from stepwell.model.rows import Entry, Run

log = logging.getLogger("stepwell.callbacks")


def warn(unit: Unit) -> None:
    """Tells of those of a unit that was committed."""
    if not unit.calls.spent_ms:  # no mutation was called
        return
    for entry in unit.entries:
        run = unit.runs.rows.get(entry.run_no)
        if run is not None and run.callback is not None:
            _warn(run, run.callback, entry, unit)


def _warn(run: Run, callback: str, entry: Entry, unit: Unit) -> None:
    body = decode_body(entry.kind, unit.text(run.no, entry.data) or "{}")
    if isinstance(body, RunCompleted | RunFailed | RunCanceled) and body.callback_error is not UNSET:
        error, function = msgspec.json.decode(body.callback_error), msgspec.json.decode(callback)["function"]
        what = "run %s is %s, but its on_complete %s failed and changed nothing: %s: %s"
        log.warning(what, run.id, run.status, function, error.get("type"), error.get("message"))

"""Callbacks (`on_complete`) that failed: each is told of once its commit stands, since nobody waits for it."""

import logging

import msgspec
from msgspec import UNSET

from stepwell.kernel.unit import Unit
from stepwell.model.entries import ENDS, RunCanceled, RunCompleted, RunFailed, decode_body
from stepwell.model.rows import Entry, Run

log = logging.getLogger("stepwell.callbacks")
#: How much of an error is told; the journal has all of it.
SAID_CHARS = 1_000


def warn(unit: Unit) -> None:
    """Tells of those of a unit that was committed. Never raises: the commit stands."""
    if not unit.calls.spent_ms:  # no mutation was called
        return
    try:
        for entry in unit.entries:
            run = unit.runs.rows.get(entry.run_no)
            if run is not None and run.callback is not None and entry.kind in ENDS:
                _warn(run, run.callback, entry, unit)
    except Exception:
        log.exception("a callback that failed is not told of")


def _warn(run: Run, callback: str, entry: Entry, unit: Unit) -> None:
    body = decode_body(entry.kind, unit.text(run.no, entry.data) or "{}")
    if isinstance(body, RunCompleted | RunFailed | RunCanceled) and body.callback_error is not UNSET:
        error, function = msgspec.json.decode(body.callback_error), msgspec.json.decode(callback)["function"]
        what = "run %s is %s, but its on_complete %s failed and changed nothing: %s: %s"
        log.warning(what, run.id, run.status, function, error.get("type"), str(error.get("message"))[:SAID_CHARS])

"""Checks of what comes in: each refuses with a typed error that names the field, the size and the limit (law 10)."""

import msgspec

from stepwell.model.errors import Invalid, TooLarge
from stepwell.model.ids import MAX_ID_BYTES, MAX_NAME_BYTES
from stepwell.model.rows import Run
from stepwell.model.settings import Settings

#: The year 2255: times beyond are slips, and this leaves room to add to.
LAST_MS = 1 << 53
#: The shortest and longest lease that may be asked for. The setting for workers begins higher.
LEASE_MS = (1_000, 1_800_000)
PRIORITY = (-1_000_000, 1_000_000)


def text(field: str, value: str, limit: int, *, empty: bool = False) -> None:
    """A short text that people and databases can hold: bounded, no control characters, valid Unicode."""
    if not isinstance(value, str):
        raise Invalid(f"{field} must be a string, not {type(value).__name__}", field=field)
    if not value and not empty:
        raise Invalid(f"{field} must not be empty", field=field)
    size = size_of(field, value)
    if size > limit:
        raise TooLarge(f"{field} has {size:,} bytes, the limit is {limit:,}", what=field, size=size, limit=limit)
    if not value.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise Invalid(f"{field} holds a control character", field=field, hint="Use printable characters only.")


def size_of(field: str, value: str) -> int:
    """How many bytes a text has where it is stored."""
    try:
        return len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{field} is not valid Unicode", field=field, hint="Remove lone surrogates.") from None


def run_id(value: str) -> None:
    """A run's, event's or request's id."""
    text("id", value, MAX_ID_BYTES)


def name(field: str, value: str, *, empty: bool = False) -> None:
    """The name of a workflow, pool, signal, scope, worker."""
    text(field, value, MAX_NAME_BYTES, empty=empty)


def payload(settings: Settings, what: str, value: str | None) -> None:
    """JSON text within the bound of a payload."""
    if value is None:
        return
    limit = settings.payload_bytes
    if (size := size_of(what, value)) > limit:
        raise TooLarge(
            f"{what} has {size:,} bytes, the limit is {limit:,}",
            what=what,
            size=size,
            limit=limit,
            hint="Keep large data elsewhere and pass a reference, or raise STEPWELL_PAYLOAD_BYTES.",
        )


def json(settings: Settings, what: str, value: str | None) -> None:
    """A payload that is one JSON value and nothing else, since it is put into entries as it stands."""
    if value is None:
        return
    payload(settings, what, value)
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid(f"{what} is not JSON: {error}", field=what, hint="Encode it as JSON before it is sent.") from None
    except RecursionError:
        hint = "Make it flatter, or send the inner part as a string."
        raise Invalid(f"{what} is JSON that is nested too deeply", field=what, hint=hint) from None


def whole(field: str, value: int | None, low: int, high: int) -> None:
    """A whole number that every store can hold."""
    if value is not None and (type(value) is not int or not low <= value <= high):
        what = f"{field} must be a whole number from {low:,} to {high:,}, not {value!r}"
        raise Invalid(what, field=field, hint="Check its unit: times are milliseconds.")


def time_ms(field: str, value: int | None) -> None:
    """A time, in milliseconds since the epoch."""
    whole(field, value, 0, LAST_MS)


def lease(worker: str, lease_ms: int, secret: str) -> None:
    """What whoever wants a lease says of itself. An empty secret would make the token of the lease guessable."""
    name("worker", worker)
    run_id(secret)
    whole("lease_ms", lease_ms, *LEASE_MS)


def room(settings: Settings, run: Run, entries: int, size: int) -> None:
    """Whether the run's journal takes this much more."""
    hint = "Continue as a new run (continue_as_new) before the journal gets this long."
    if run.head_seq + entries > settings.journal_entries:
        raise TooLarge(
            f"the journal of {run.id} would have {run.head_seq + entries:,} entries, the limit is "
            f"{settings.journal_entries:,}",
            what="journal_entries",
            size=run.head_seq + entries,
            limit=settings.journal_entries,
            hint=hint,
        )
    if run.journal_bytes + size > settings.journal_bytes:
        raise TooLarge(
            f"the journal of {run.id} would have {run.journal_bytes + size:,} bytes, the limit is "
            f"{settings.journal_bytes:,}",
            what="journal_bytes",
            size=run.journal_bytes + size,
            limit=settings.journal_bytes,
            hint=hint,
        )

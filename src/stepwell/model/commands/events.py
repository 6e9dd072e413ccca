"""Commands about events and flows."""

from msgspec import Struct

from stepwell.model.commands.base import Command
from stepwell.model.words import OutputKind


class Match(Struct, frozen=True, gc=False):
    """A flow step that an event triggers; or, with `workflow`, a workflow of that name, whose input is the event.

    `deadline_ms` is how long the run may take in all.
    """

    flow: str
    step: str
    version: str = ""
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    requires: str = ""
    retry: str | None = None
    tags: str | None = None
    workflow: str | None = None
    deadline_ms: int | None = None


class NewEvent(Struct, frozen=True, gc=False):
    """An event as it came in; `payload` and `extra` are JSON text."""

    id: str
    type: str
    received_at: str
    body_hash: str
    payload: str = "{}"
    source: str | None = None
    occurred_at: str | None = None
    extra: str | None = None


class AcceptEvent(Command):
    """Stores an event, its matches and its runs. Errors: conflict (other body), outdated (manifests changed)."""

    event: NewEvent
    matches: tuple[Match, ...] = ()
    manifests_at: int = 0
    misses: str | None = None
    scope: str = "main"
    by: str = ""


class ReplayEvent(Command):
    """Runs a stored event again: new runs, linked to those of the first dispatch. Errors: outdated."""

    event_id: str
    matches: tuple[Match, ...] = ()
    manifests_at: int = 0
    scope: str = "main"
    by: str = ""


class Accepted(Struct, gc=False):
    """`status` is accepted or duplicate (adopted or present); `run_ids` in the order of the matches."""

    status: str
    event_id: str
    run_ids: list[str]
    matched: int


class Emitted(Struct, frozen=True, gc=False):
    """An event that a run's result sends, with what it matched."""

    event: NewEvent
    matches: tuple[Match, ...] = ()
    misses: str | None = None


class Emission(Struct, frozen=True, gc=False):
    """The events of one result, matched on revision `manifests_at`; accepted in the commit that ends the run."""

    events: tuple[Emitted, ...]
    manifests_at: int = 0
    scope: str = "main"


class AdoptedRun(Struct, frozen=True, gc=False):
    """A run that ended elsewhere. Times are milliseconds; `status` is completed, failed or canceled."""

    id: str
    flow: str
    step: str
    created_at: int
    ended_at: int
    status: str
    started_at: int | None = None
    version: str = ""
    requires: str = ""
    replay: int = 0
    result: str | None = None
    result_status: str | None = None
    error: str | None = None
    tags: str | None = None
    output: tuple[tuple[OutputKind, str], ...] = ()


class AdoptEvent(Command):
    """Takes over an event and its ended runs from another system, with their ids and times.

    Answers `adopted`, or `present` when the event is there already. Errors: conflict (other body), exists (a run id).
    """

    event: NewEvent
    created_at: int
    runs: tuple[AdoptedRun, ...] = ()
    worker: str = "imported"
    scope: str = "main"
    by: str = ""


class SyncManifests(Command):
    """Makes `manifests` (name, version, hash, data) the stored ones of the scope. Answers the revision.

    Names that begin with `keeps` (empty: all names) are not the sender's alone: one that is not given stays.
    """

    manifests: tuple[tuple[str, str, str, str], ...]
    scope: str = "main"
    keeps: str | None = None


class Revision(Struct, gc=False):
    """The number that matching was done against."""

    revision: int
    changed: bool

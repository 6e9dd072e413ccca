"""What a worker writes under its lease, as commands."""

from msgspec import Struct

from stepwell.model.commands.base import Command, Lease
from stepwell.model.commands.events import Emission
from stepwell.model.entries import Body
from stepwell.model.rows import Entry
from stepwell.model.words import OutputKind


class Draft(Struct, frozen=True, gc=False):
    """An entry that a worker wants written. `sends`: the one event of an `event.sent`."""

    body: Body
    key: str | None = None
    sends: Emission | None = None


class Record(Command):
    """Appends entries to the journal of a leased turn. Errors: stale, ended, out_of_step, outdated. Repeatable.

    What one of them asks for and cannot be done (a signal to a run that is not there) becomes `step.failed` of its key,
    with the reason; the others stand.
    """

    lease: Lease
    n: int
    seen: int
    entries: tuple[Draft, ...]


class Recorded(Struct, gc=False):
    """`first` is the seq of the first entry written, `at` the time of all of them.

    `missed` is what others wrote since `seen`, to deliver first. `own` are the entries as they stand, of a repeat and
    where the kernel wrote something else than it was given; otherwise empty.
    """

    first: int
    head: int
    now: int
    at: int
    missed: list[Entry] = []
    own: list[Entry] = []


class Mutate(Command):
    """Runs mutation `function` in the kernel's transaction. Errors: as Record, unknown_function."""

    lease: Lease
    n: int
    seen: int
    key: str
    function: str
    args: str = "null"


class Park(Command):
    """Gives a turn's lease back until something comes. Errors: stale, ended, out_of_step, unseen. Repeatable.

    `unread`: names of signals that came and that nobody has asked for.
    """

    lease: Lease
    n: int
    seen: int
    waits: tuple[str, ...] = ()
    due_at: int | None = None
    due_key: str | None = None
    unread: tuple[str, ...] = ()


class Completed(Struct, frozen=True, gc=False, tag="completed"):
    """`result_status` is the status that a flow result says of itself."""

    result: str = "null"
    result_status: str | None = None


class Canceled(Struct, frozen=True, gc=False, tag="canceled"):
    """The worker has honoured a cancel."""

    reason: str = ""


class CarriedSignal(Struct, frozen=True, gc=False):
    """A signal that nobody read, handed on to the next run."""

    name: str
    payload: str
    dedup: str | None = None


class Continued(Struct, frozen=True, gc=False, tag="continued"):
    """The run goes on as a new one, `id`, with the signals nobody read. Needs `seen` to be the last deliverable."""

    id: str
    input: str
    seen: int
    name: str = ""
    version: str = ""
    requires: str = ""
    signals: tuple[CarriedSignal, ...] = ()


class Finish(Command):
    """Ends a task well. Errors: stale, ended, unseen and open (continued). Repeatable.

    `sends`: the events of a completed step's result. Errors with it: outdated, conflict, too_large (the chain).
    """

    lease: Lease
    n: int
    outcome: Completed | Canceled | Continued
    sends: Emission | None = None
    unread: tuple[str, ...] = ()


class Fail(Command):
    """Ends an attempt badly; `retry` false: no further attempt. Errors: stale, ended. Repeatable.

    `sends` goes out only if this ends the run. Errors with it: as `Finish`.
    """

    lease: Lease
    n: int
    error: str
    retry: bool = True
    result: str | None = None
    result_status: str | None = None
    sends: Emission | None = None
    unread: tuple[str, ...] = ()


class Release(Command):
    """Gives a lease back, for `delay_ms` at the least. Errors: stale, ended. Repeatable.

    `broken`: the worker could do nothing with the task; it counts like a lost lease. `hold` (mismatch, poison, stalled)
    holds the run for people to look at, and `diff` tells them why.
    """

    lease: Lease
    n: int
    delay_ms: int = 0
    broken: bool = False
    hold: str | None = None
    diff: str = ""


class Done(Struct, gc=False):
    """The task's state after the write, the run's status, and when it is tried again."""

    state: str
    status: str
    next_at: int | None = None


class Beat(Struct, frozen=True, gc=False):
    """One lease in a `Sync`; `details` is JSON that the next attempt can read."""

    lease: Lease
    seen: int = 0
    details: str | None = None


class Sync(Command):
    """Extends all leases of a worker and tells what happened to their runs. No errors of its own. Repeatable."""

    worker: str
    beats: tuple[Beat, ...]
    lease_ms: int = 120_000


class Synced(Struct, gc=False):
    """`error` is a code (stale, ended) when the lease is gone, and then nothing else counts.

    `untold`: the run is being written elsewhere, so the details are not kept; they come with the next heartbeat.
    """

    run_no: int
    k: int
    lease_until: int = 0
    cancel: bool = False
    error: str | None = None
    dropped: str | None = None  # why details are never kept
    untold: bool = False
    missed: list[Entry] = []


class Beats(Struct, gc=False):
    """One `Synced` for each beat, in order."""

    tasks: list[Synced]
    now: int


class Say(Command):
    """Appends output (kind, text) of a leased attempt; `at` is how much the run had. Errors: stale, out_of_step."""

    lease: Lease
    at: int
    chunks: tuple[tuple[OutputKind, str], ...]


class Said(Struct, gc=False):
    """`next` is how many chunks the run has now; `cut`: the bound was reached and the rest is dropped."""

    next: int
    cut: bool = False

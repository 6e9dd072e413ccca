"""Commands and their replies, as data (source: KERNEL, commands).

Payloads are JSON text. A command that is refused answers with a `StepwellError`; the docstring names the errors beyond
`invalid`, `too_large`, `unknown` and `unavailable`. `repeatable` commands may be sent again after a lost answer.
"""

from msgspec import Struct

from stepwell.model.entries import Body
from stepwell.model.rows import Entry, Event, Pool, Run
from stepwell.model.words import OutputKind, Reuse


class Command(Struct, gc=False):
    """Base of all commands."""


class Lease(Struct, frozen=True, gc=False):
    """What a worker holds: the task, the fencing epoch, and the token that was told once."""

    run_no: int
    k: int
    epoch: int
    token: str


# ── events and flows ─────────────────────────────────────────────────────────────────────────────────────────────


class Match(Struct, frozen=True, gc=False):
    """A flow step that an event triggers."""

    flow: str
    step: str
    version: str = ""
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    requires: str = ""
    retry: str | None = None
    tags: str | None = None


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
    """Makes `manifests` (name, version, hash, data) the stored ones of the scope. Answers the revision."""

    manifests: tuple[tuple[str, str, str, str], ...]
    scope: str = "main"


class Revision(Struct, gc=False):
    """The number that matching was done against."""

    revision: int
    changed: bool


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class ClaimFor(Struct, frozen=True, gc=False):
    """Start and lease in one commit, if the pool has a free slot and nothing is ready before it."""

    worker: str
    lease_ms: int
    secret: str


class StartRun(Command):
    """Starts a workflow. Errors: exists, conflict (same id, other input)."""

    id: str
    name: str
    input: str = "null"
    version: str = ""
    scope: str = "main"
    reuse: Reuse = "return"
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    requires: str = ""
    due_at: int | None = None
    deadline: int | None = None
    tags: str | None = None
    by: str = ""
    claim_for: ClaimFor | None = None


class Started(Struct, gc=False):
    """`created` is false when the id named a run that was there; `claim` only for a fused start."""

    run_no: int
    run_id: str
    created: bool
    claim: "Leased | None" = None


class Claim(Command):
    """Leases up to `limit` ready tasks. `pools` empty: all; `requires` None: whatever there is; `scope` None: all.

    `request` is the claimer's secret: a repeat with the same one gets the same leases. `via` says how the worker runs
    what it claims, for the record.
    """

    worker: str
    request: str
    pools: tuple[str, ...] = ()
    requires: tuple[str, ...] | None = None
    limit: int = 1
    lease_ms: int = 120_000
    scope: str | None = None
    version: str = ""
    via: str = ""


class Leased(Struct, gc=False):
    """One leased task with what its worker needs: the run, the kept journal, and the event of a flow step."""

    lease: Lease
    run: Run
    kind: str
    attempt: int
    failures: int
    lease_until: int
    seen: int
    now: int
    input: str | None = None
    key: str | None = None
    name: str | None = None
    args: str | None = None
    details: str | None = None
    output_n: int = 0
    event: Event | None = None
    journal: list[Entry] = []


class Claimed(Struct, gc=False):
    """`more`: tasks may be ready that did not fit, or that were looked at and could not run yet."""

    tasks: list[Leased]
    now: int
    more: bool = False


# ── a worker's writes ────────────────────────────────────────────────────────────────────────────────────────────


class Draft(Struct, frozen=True, gc=False):
    """An entry that a worker wants written."""

    body: Body
    key: str | None = None


class Record(Command):
    """Appends entries to the journal of a leased turn. Errors: stale, ended, out_of_step. Repeatable."""

    lease: Lease
    n: int
    seen: int
    entries: tuple[Draft, ...]


class Recorded(Struct, gc=False):
    """`first` is the seq of the first entry written; `missed` is what others wrote since `seen`, to deliver first."""

    first: int
    head: int
    now: int
    missed: list[Entry] = []


class Mutate(Command):
    """Runs mutation `function` in the kernel's transaction. Errors: as Record, unknown_function."""

    lease: Lease
    n: int
    seen: int
    key: str
    function: str
    args: str = "null"


class Park(Command):
    """Gives a turn's lease back until something comes. Errors: stale, ended, out_of_step, unseen. Repeatable."""

    lease: Lease
    n: int
    seen: int
    waits: tuple[str, ...] = ()
    due_at: int | None = None
    due_key: str | None = None


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


class Release(Command):
    """Gives a lease back, for `delay_ms` at the least. Errors: stale, ended. Repeatable.

    `broken`: the worker could do nothing with the task; it counts like a lost lease.
    """

    lease: Lease
    n: int
    delay_ms: int = 0
    broken: bool = False


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
    """`error` is a code (stale, ended) when the lease is gone, and then nothing else counts."""

    run_no: int
    k: int
    lease_until: int = 0
    cancel: bool = False
    error: str | None = None
    dropped: str | None = None  # why details were not kept
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


# ── anyone allowed ───────────────────────────────────────────────────────────────────────────────────────────────


class Signal(Command):
    """Appends a signal. Errors: ended, conflict (same dedup key, other payload)."""

    run_id: str
    name: str
    payload: str = "null"
    dedup: str | None = None
    by: str = ""
    scope: str = "main"


class Signaled(Struct, gc=False):
    """`seq` of the entry; or `moved_to`, the run that continues this one."""

    seq: int
    moved_to: str | None = None


class Cancel(Command):
    """Asks a run to end. Errors: ended."""

    run_id: str
    by: str = ""
    reason: str = ""
    scope: str = "main"


class Terminate(Command):
    """Ends a run without asking. Errors: ended."""

    run_id: str
    by: str = ""
    reason: str = ""
    scope: str = "main"


class HoldRun(Command):
    """Stops a run where it is. Errors: ended."""

    run_id: str
    reason: str = "paused"
    by: str = ""
    diff: str = ""
    scope: str = "main"


class ReleaseRun(Command):
    """Lets a held run go on; a run that is not held stays as it is. Errors: ended."""

    run_id: str
    by: str = ""
    scope: str = "main"


class Restart(Command):
    """Begins a new generation of an ended run, with the entries up to `keep_seq`. Errors: open."""

    run_id: str
    keep_seq: int = 0
    by: str = ""
    scope: str = "main"


class RunState(Struct, gc=False):
    """The run after the command."""

    run_id: str
    status: str
    generation: int
    hold: str | None = None


class SetPool(Command):
    """Creates or changes a pool; all None and not paused removes it."""

    pool: Pool


# ── internal: the lane sends these to itself, each bounded ───────────────────────────────────────────────────────


class Sweep(Command):
    """Ends expired leases, overdue cancels and run deadlines."""

    limit: int = 1_000


class Fire(Command):
    """Fires timers and makes due tasks ready."""

    limit: int = 1_000


class Deliver(Command):
    """Delivers messages to their runs."""

    limit: int = 500


class Promote(Command):
    """Makes blocked tasks ready whose pool key has a free slot.

    `keys` (scope, pool, key); none: `limit` of those there are, that come `after` one.
    """

    keys: tuple[tuple[str, str, str], ...] = ()
    after: tuple[str, str, str] = ("", "", "")
    limit: int = 1_000


class Prune(Command):
    """Deletes ended runs, events, requests and changes past their retention."""

    limit: int = 200


class Worked(Struct, gc=False):
    """How many rows an internal command handled, and whether its bound was reached."""

    count: int
    more: bool = False
    after: tuple[str, str, str] | None = None  # of a promotion: where the rest begins


Reply = Accepted | Revision | Started | Claimed | Recorded | Done | Beats | Said | Signaled | RunState | Worked

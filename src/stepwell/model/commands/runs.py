"""Commands that start runs and lease their tasks."""

from msgspec import Struct

from stepwell.model.commands.base import Command, Lease
from stepwell.model.rows import Entry, Event, Run
from stepwell.model.words import Reuse, RunKind


class ClaimFor(Struct, frozen=True, gc=False):
    """Start and lease in one commit, if the pool has a free slot and nothing is ready before it."""

    worker: str
    lease_ms: int
    secret: str


class StartRun(Command):
    """Starts a workflow, or with `kind` step a function that runs as an action does, under `retry`.

    `callback` is JSON {"function", "context"?}: the mutation that is called with the end, in its commit.
    Errors: exists, conflict (same id, other input).
    """

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
    kind: RunKind = "workflow"
    retry: str | None = None
    due_at: int | None = None
    deadline: int | None = None
    tags: str | None = None
    by: str = ""
    claim_for: ClaimFor | None = None
    callback: str | None = None


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
    retry: str | None = None
    timeout_ms: int | None = None
    heartbeat_ms: int | None = None
    deadline: int | None = None
    output_n: int = 0
    event: Event | None = None
    journal: list[Entry] = []


class Claimed(Struct, gc=False):
    """`more`: tasks may be ready that did not fit, or that were looked at and could not run yet."""

    tasks: list[Leased]
    now: int
    more: bool = False

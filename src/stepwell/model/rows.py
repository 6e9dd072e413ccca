"""The rows that stores keep: one struct a table, fields in the order of the columns (source: KERNEL, tables).

Times are integer milliseconds since the epoch. JSON is text. A payload column may hold `@` and a SHA-256 in hex
instead: then the text is in the `blob` row of that hash. Rows are never changed in place: the unit of work copies a
row before a command edits it, so a cache may hand out the same object again.
"""

from msgspec import Struct

from stepwell.model.words import ATTENTION, TERMINAL, OutputKind, RunKind, Status, TaskKind, TaskState


class Run(Struct, gc=False):
    """One execution. Every field but `no`, `scope` and `id` is the fold of the run's journal (law 2).

    The order is by how often a field changes, so that a store can write the tail alone: never, seldom (from
    `generation`), with the status (from `status`), with every entry (from `head_seq`).
    """

    no: int
    scope: str
    id: str
    kind: RunKind = "workflow"
    name: str = ""
    version: str = ""
    pool: str = "default"
    pool_key: str | None = None
    priority: int = 0
    parent_no: int | None = None
    parent_key: str | None = None
    parent_gen: int = 0  # the parent's generation that started this run
    root_no: int | None = None
    event_no: int | None = None
    replay: int = 0  # 0: the first dispatch of the event; n: its n-th replay
    depth: int = 0  # of its event: how many runs, each with an event that the one before sent, led here
    created_at: int = 0
    tags: str | None = None
    callback: str | None = None  # JSON {"function", "context"}: the mutation that is called at its end

    generation: int = 1
    turn: int = 1  # the task that runs the body or the step: its number within the run
    kept_seq: int = 0  # entries up to this one came with the last restart
    result_status: str | None = None
    hold: str | None = None
    next_no: int | None = None  # the run that continues this one
    cancel_at: int | None = None
    deadline: int | None = None
    ended_at: int | None = None
    input: str | None = None
    result: str | None = None
    error: str | None = None

    status: Status = "queued"
    waits: str | None = None  # JSON list of what a parked run waits for
    started_at: int | None = None

    head_seq: int = 0
    wake_seq: int = 0  # the last deliverable entry
    epoch: int = 0  # of the turn's last lease
    write_no: int = 0  # the last numbered write of that lease
    write_seq: int = 0  # its first entry
    open_actions: int = 0
    open_children: int = 0  # attached ones
    journal_bytes: int = 0
    updated_at: int = 0

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL

    @property
    def needs_attention(self) -> bool:
        """A hold other than paused, or a result that asks for somebody."""
        return self.hold not in (None, "paused") or self.result_status in ATTENTION


class Entry(Struct, gc=False):
    """One line of a run's journal. `n` is the number of the worker's write that made it, 0 if nobody numbered it."""

    run_no: int
    seq: int
    kind: str
    key: str | None
    n: int
    generation: int
    at: int
    data: str  # the body as JSON, see model.entries


class Task(Struct, gc=False):
    """A unit of work that a worker may lease. Its id is `<run id>.<k>`; `k` is the entry that made it. Not folded."""

    run_no: int
    k: int
    scope: str
    kind: TaskKind
    state: TaskState
    pool: str
    pool_key: str | None = None
    requires: str = ""
    priority: int = 0
    order: int = 0
    due_at: int | None = None
    due_key: str | None = None  # the timer that a parked turn waits for
    epoch: int = 0
    attempt: int = 0
    failures: int = 0
    lost: int = 0  # leases lost in a row
    write_no: int = 0  # of an action's lease: 1 once its worker ended it
    worker: str | None = None
    leased_at: int | None = None
    lease_until: int | None = None
    token_hash: str | None = None
    output_n: int = 0  # of the run's turn: chunks and bytes that the whole run has said
    output_bytes: int = 0
    said: int = 0  # chunks that this task has said
    key: str | None = None  # the step key of an action
    name: str | None = None  # the function of an action
    details: str | None = None
    args: str | None = None
    retry: str | None = None
    timeout_ms: int | None = None  # of an attempt of an action, for its worker
    heartbeat_ms: int | None = None
    deadline: int | None = None  # of an action, over all its attempts


class Event(Struct, gc=False):
    """An accepted FlowEvent. `payload` and `extra` are JSON; `misses` says why steps did not match.

    `cause` is the id of the run whose result sent it, at `depth` such steps from an event that came from outside.
    """

    no: int
    scope: str
    id: str
    type: str
    body_hash: str
    source: str | None
    occurred_at: str | None
    received_at: str
    matched: int
    replays: int
    created_at: int
    payload: str
    extra: str | None = None
    misses: str | None = None
    cause: str | None = None
    depth: int = 0


class Manifest(Struct, gc=False):
    """A flow as it was when it was last synced."""

    scope: str
    name: str
    version: str
    hash: str
    updated_at: int
    data: str


class Pool(Struct, gc=False):
    """A named limit. No row means no limit. `rate` claims per `rate_ms`; `tokens` is what is left of it."""

    scope: str
    name: str
    limit: int | None = None
    key_limit: int | None = None
    rate: int | None = None
    rate_ms: int = 1000
    tokens: float = 0.0
    refilled_at: int = 0
    paused: bool = False


class Output(Struct, gc=False):
    """A chunk of what an attempt said; `n` is dense within the run, from 1."""

    run_no: int
    n: int
    attempt: int
    kind: OutputKind
    at: int
    text: str


class Blob(Struct, gc=False):
    """A payload over the threshold. Owned by a run, or by an event: the other is 0."""

    run_no: int
    event_no: int
    hash: str
    data: str


class Message(Struct, gc=False):
    """What one run has to say to another that exists; delivered in a commit of its own, first in first out."""

    no: int
    scope: str
    to_no: int
    from_no: int
    from_seq: int
    kind: str
    key: str | None
    at: int
    data: str


class Request(Struct, gc=False):
    """The answer that a repeat of the same request gets."""

    scope: str
    key: str
    body_hash: str
    reply: str
    expires_at: int


class Touched(Struct, gc=False, omit_defaults=True):
    """What a commit touched of a scope: what it appended to which runs, as (number, first seq, last seq), and tables.

    Tables are events, manifests, pools, output and app; `pruned` stands for runs that were deleted.
    """

    runs: list[tuple[int, int, int]] = []
    tables: list[str] = []


class Change(Struct, gc=False):
    """One row for each scope that a commit touched. `touched` is a `Touched` as JSON.

    `pos` has no gaps and rises in the order of the commits, in each scope by itself.
    """

    scope: str
    pos: int
    at: int
    touched: str

"""What clients answer: events, runs, attempts and output as typed values (source: spec codex-flows 6.1).

Times are the server's ISO-8601 texts. What a server does not say is None, empty, or 0. `raw` is the JSON as it came.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from stepwell.model.words import TERMINAL

T = TypeVar("T")
#: The results that ask for somebody where the server does not say so itself (source: seed).
SEED_ATTENTION = frozenset(("blocked", "needs_intervention"))


class OutputChunk(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A piece of what a run said. `n` counts within the run; `kind` is stdout, stderr, agent or system."""

    n: int = 0
    attempt: int = 0
    kind: str = "stdout"
    text: str = ""
    at: str | None = None


class AttemptView(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One try of a run; `ended` says how it ended."""

    id: str = ""
    attempt: int = 0
    status: str | None = None
    worker: str | None = None
    executor: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    ended: str | None = None
    error: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


class RunView(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One run.

    `process_status` is the run's own status; `result_status` is what its step said of itself; `effective_status` (also
    `status`) is that, else the run's own, else `unknown`. `result` is the FLOW_RESULT object. `error` is a message,
    `failure` all that is known of it. `attempts`, `output` and `why` come with a run by itself, not in lists.
    """

    id: str
    event_id: str | None = None
    flow_name: str | None = None
    flow_version: str | None = None
    step_name: str | None = None
    runner: str | None = None
    backend: str | None = None
    executor: str | None = None
    process_status: str | None = None
    result_status: str | None = None
    effective_status: str = "unknown"
    needs_attention: bool = False
    hold: str | None = None
    replay: int = 0
    attempt_count: int = 0
    attempts: tuple[AttemptView, ...] = ()
    output: tuple[OutputChunk, ...] = ()
    result: Any = None
    error: str | None = None
    failure: Any = None
    why: str | None = None
    next_event_ids: tuple[str, ...] = ()
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    updated_at: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The effective status, as in the seed."""
        return self.effective_status

    @property
    def ended(self) -> bool:
        """Whether the run itself has: nothing more comes of it unless somebody retries it."""
        return self.process_status in TERMINAL

    @property
    def latest_output(self) -> str | None:
        """The last piece of what it said."""
        return self.output[-1].text if self.output else None


class EventView(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One event; `runs` comes with an event by itself, not in lists."""

    id: str
    type: str | None = None
    source: str | None = None
    occurred_at: str | None = None
    received_at: str | None = None
    payload: Any = None
    run_ids: tuple[str, ...] = ()
    runs: tuple[RunView, ...] = ()
    matched: int | None = None
    replays: int = 0
    misses: tuple[dict[str, Any], ...] = ()
    cause: Any = None
    depth: int = 0
    created_at: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


class DispatchResult(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What came of an event: `status` is accepted or duplicate.

    `runs` (at least as lists show them) and `ended` (all of them have) come if the call waited; else `ended` is None.
    """

    status: str
    event_id: str
    run_ids: tuple[str, ...] = ()
    matched: int = 0
    idempotent: bool = False
    runs: tuple[RunView, ...] = ()
    ended: bool | None = None
    raw: dict[str, Any] = field(default_factory=dict)


class Page(Struct, Generic[T], frozen=True):
    """A part of a list, newest first; `cursor` asks for the rest, None at its end."""

    items: tuple[T, ...]
    cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]


class OutputPage(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Chunks after a number. `next` asks for more; `ended`: the run has, and this is the last of what it said."""

    run_id: str
    chunks: tuple[OutputChunk, ...] = ()
    next: int = 0
    ended: bool = False

"""What a program sees of a run: the run itself, its journal, its output (source: API, Run, Entry, Output)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from stepwell.model import rows
from stepwell.model.words import Status


class Run(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A run as it was when it was read. `waiting_for`: what a run that does not move waits for, in words.

    `result_status` is what a flow step says of itself. `hold`: why it was stopped, see `needs_attention`.
    """

    id: str
    name: str
    status: Status
    version: str = ""
    result_status: str | None = None
    needs_attention: bool = False
    waiting_for: str | None = None
    hold: str | None = None
    generation: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended: completed, failed or canceled."""
        return self.ended_at is not None


class Entry(Struct, frozen=True, kw_only=True):
    """One entry of a run's journal; `seq` counts from 1, `body` is its data as plain JSON values."""

    run_id: str
    seq: int
    kind: str
    key: str | None = None
    at: datetime
    body: Any


class Output(Struct, frozen=True, kw_only=True):
    """A piece of what a run said; `seq` counts from 1, `kind` is stdout, stderr, agent or system."""

    seq: int
    kind: str
    text: str


def run_of(row: rows.Run) -> Run:
    """A run's row as its view."""
    return Run(
        id=row.id,
        name=row.name,
        status=row.status,
        version=row.version,
        result_status=row.result_status,
        needs_attention=row.needs_attention,
        waiting_for=_waiting_for(row),
        hold=row.hold,
        generation=row.generation,
        tags={} if row.tags is None else msgspec.json.decode(row.tags),
        created_at=moment(row.created_at),
        started_at=None if row.started_at is None else moment(row.started_at),
        ended_at=None if row.ended_at is None else moment(row.ended_at),
        deadline=None if row.deadline is None else moment(row.deadline),
    )


def entry_of(run_id: str, row: rows.Entry) -> Entry:
    """A journal entry's row as its view."""
    data = msgspec.json.decode(row.data)
    return Entry(run_id=run_id, seq=row.seq, kind=row.kind, key=row.key, at=moment(row.at), body=data)


def output_of(row: rows.Output) -> Output:
    """An output chunk's row as its view."""
    return Output(seq=row.n, kind=row.kind, text=row.text)


def moment(at_ms: int) -> datetime:
    """Milliseconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC)


def _waiting_for(row: rows.Run) -> str | None:
    """What it waits for: as its last park told it, or the hold that stopped it."""
    if row.terminal or row.status == "running":
        return None
    if row.hold is not None:
        return f"hold: {row.hold}"
    if row.status == "queued":
        return "a worker"
    return ", ".join(msgspec.json.decode(row.waits)) if row.waits else None

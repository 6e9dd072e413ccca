"""The rows of a memory store, by key, with the undo log of its transaction."""

from typing import Any

import msgspec

from stepwell.kernel.unit import TaskKey
from stepwell.model.rows import Blob, Change, Entry, Event, Manifest, Message, Output, Pool, Request, Run, Task

_GONE: Any = object()


class Tables:
    """All rows, by key, and the undo log of the transaction that is under way."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.tasks: dict[TaskKey, Task] = {}
        self.entries: dict[int, list[Entry]] = {}
        self.events: dict[tuple[str, str], Event] = {}
        self.manifests: dict[tuple[str, str], Manifest] = {}
        self.pools: dict[tuple[str, str], Pool] = {}
        self.requests: dict[tuple[str, str], Request] = {}
        self.blobs: dict[tuple[int, int, str], Blob] = {}
        self.outputs: dict[tuple[int, int], Output] = {}
        self.messages: dict[int, Message] = {}
        self.changes: dict[int, Change] = {}
        self.heads: dict[str, int] = {}
        self.meta: dict[str, int] = {}
        self.next: dict[str, int] = {"run": 1, "event": 1, "message": 1, "change": 1, "commit": 1}
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        self.undo.append((table, key, table.get(key, _GONE)))
        table[key] = row

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        if key in table:
            self.undo.append((table, key, table.pop(key)))

    def take(self, kind: str) -> int:
        number = self.next[kind]
        self.put(self.next, kind, number + 1)
        return number

    def back(self) -> None:
        for table, key, row in reversed(self.undo):
            if row is _GONE:
                table.pop(key, None)
            else:
                table[key] = row
        self.undo.clear()

    def text(self, run_no: int, event_no: int, stored: str | None) -> str | None:
        """A payload as it was given, wherever it is kept."""
        if stored is None or not stored.startswith("@"):
            return stored
        return self.blobs[(run_no, event_no, stored[1:])].data


def full_entry(t: Tables, entry: Entry) -> Entry:
    if not entry.data.startswith("@"):
        return entry
    return msgspec.structs.replace(entry, data=t.text(entry.run_no, 0, entry.data))


def full_event(t: Tables, event: Event) -> Event:
    return msgspec.structs.replace(event, payload=t.text(0, event.no, event.payload))


def full_run(t: Tables, run: Run) -> Run:
    if all(value is None or not value.startswith("@") for value in (run.input, run.result, run.error)):
        return run
    resolved = {name: t.text(run.no, 0, getattr(run, name)) for name in ("input", "result", "error")}
    return msgspec.structs.replace(run, **resolved)

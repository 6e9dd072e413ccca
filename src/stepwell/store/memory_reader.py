"""Looking at the rows of a memory store."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from stepwell.kernel.calls import AppTables
from stepwell.kernel.fold import kept
from stepwell.model.entries import StateSet, text_of
from stepwell.model.rows import Change, Entry, Event, Manifest, Output, Pool, Run, Task
from stepwell.store.memory_app import MemoryApp, MemoryTables
from stepwell.store.port import Page, RunFilter
from stepwell.store.tables import Tables, full_entry, full_event, full_run


class MemoryReader:
    """Reads committed rows, since the lock is free only between transactions."""

    def __init__(self, lock: threading.RLock, tables: Tables, app: MemoryApp) -> None:
        self._lock, self._t = lock, tables
        self.app: AppTables = MemoryTables(app, "read")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._lock:
            yield

    def run(self, scope: str, run_id: str) -> Run | None:
        with self._lock:
            return next(
                (full_run(self._t, run) for run in self._t.runs.values() if (run.scope, run.id) == (scope, run_id)),
                None,
            )

    def run_by_no(self, number: int) -> Run | None:
        with self._lock:
            run = self._t.runs.get(number)
            return None if run is None else full_run(self._t, run)

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page:
        with self._lock:
            rows = [
                full_run(self._t, run)
                for run in sorted(self._t.runs.values(), key=lambda run: -run.no)
                if (before is None or run.no < before) and _shown(run, where)
            ]
        return page(rows, limit)

    def event(self, scope: str, event_id: str) -> Event | None:
        with self._lock:
            row = self._t.events.get((scope, event_id))
            return None if row is None else full_event(self._t, row)

    def event_by_no(self, number: int) -> Event | None:
        with self._lock:
            return next((full_event(self._t, row) for row in self._t.events.values() if row.no == number), None)

    def list_events(self, scope: str, *, of_type: str | None = None, limit: int, before: int | None = None) -> Page:
        with self._lock:
            rows = [
                full_event(self._t, event)
                for event in sorted(self._t.events.values(), key=lambda event: -event.no)
                if event.scope == scope and of_type in (None, event.type) and (before is None or event.no < before)
            ]
        return page(rows, limit)

    def entries(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Entry]:
        with self._lock:
            found = [full_entry(self._t, entry) for entry in self._t.entries.get(run_no, []) if entry.seq > after]
        return found[:limit]

    def state(self, run_no: int, name: str) -> str | None:
        with self._lock:
            bodies = [
                msgspec.json.decode(full_entry(self._t, entry).data, type=StateSet)
                for entry in kept(self._t.entries.get(run_no, []))
                if entry.kind == StateSet.kind
            ]
        return next((text_of(body.value) for body in reversed(bodies) if body.name == name), None)

    def tasks_of(self, run_no: int, until: int | None = None) -> list[Task]:
        with self._lock:
            found = [task for task in self._t.tasks.values() if run_no <= task.run_no <= (until or run_no)]
        return sorted(found, key=lambda task: (task.run_no, task.k))

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]:
        with self._lock:
            found = [row for (no, n), row in sorted(self._t.outputs.items()) if no == run_no and n > after]
        return found[:limit]

    def pools(self, scope: str) -> list[Pool]:
        with self._lock:
            return sorted((pool for pool in self._t.pools.values() if pool.scope == scope), key=lambda pool: pool.name)

    def manifests(self, scope: str) -> list[Manifest]:
        with self._lock:
            return sorted((row for row in self._t.manifests.values() if row.scope == scope), key=lambda row: row.name)

    def meta(self, key: str) -> int | None:
        return self._t.meta.get(key)

    def changes(self, scope: str, *, after: int, limit: int = 1_000) -> list[Change]:
        with self._lock:
            return [row for row in self._t.changes.values() if row.scope == scope and row.pos > after][:limit]

    def head(self, scope: str) -> int:
        return self._t.heads.get(scope, 0)

    def floor(self, scope: str) -> int:
        return self._t.meta.get(f"changes:{scope}", 0)

    def others(self, lanes: Collection[str]) -> int:
        with self._lock:
            own = sum(self._t.meta.get(f"lane:{lane}", 0) for lane in lanes)
            return self._t.next["commit"] - 1 - own

    def next_due(self) -> int | None:
        with self._lock:
            times = [task.due_at for task in self._t.tasks.values() if task.state == "due"]
        return min((time for time in times if time is not None), default=None)

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        with self._lock:
            found = [full_run(self._t, run) for no, run in sorted(self._t.runs.items()) if no > after]
        return found[:limit]

    def scan_entries(self, *, after: tuple[int, int], until: int, limit: int) -> list[Entry]:
        with self._lock:
            journals = [journal for no, journal in sorted(self._t.entries.items()) if after[0] <= no <= until]
            found = [entry for journal in journals for entry in journal if (entry.run_no, entry.seq) > after]
            return [full_entry(self._t, entry) for entry in found[:limit]]

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]:
        with self._lock:
            found = sorted((row for row in self._t.events.values() if row.no > after), key=lambda row: row.no)
            return [full_event(self._t, row) for row in found[:limit]]

    def orphans(self, limit: int = 100) -> list[str]:
        with self._lock:
            t, found = self._t, []
            found += [f"entries of run {no}" for no in t.entries if no not in t.runs]
            found += [f"task {no}.{k}" for no, k in t.tasks if no not in t.runs]
            found += [f"output {no}.{n}" for no, n in t.outputs if no not in t.runs]
            found += [f"blob {digest} of run {no}" for no, _, digest in t.blobs if no and no not in t.runs]
            events = {event.no for event in t.events.values()}
            found += [f"blob {digest} of event {no}" for _, no, digest in t.blobs if no and no not in events]
        return found[:limit]

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        with self._lock:
            counts = dict.fromkeys(events, 0)
            for run in self._t.runs.values():
                if run.event_no in counts and run.replay == 0:
                    counts[run.event_no] += 1
        return counts

    def messages_to(self, runs: Collection[int]) -> set[int]:
        with self._lock:
            return {message.to_no for message in self._t.messages.values() if message.to_no in runs}

    def counts(self) -> dict[str, int]:
        with self._lock:
            counts: dict[str, int] = {}
            for run in self._t.runs.values():
                if not run.terminal:
                    counts[f"run.{run.status}"] = counts.get(f"run.{run.status}", 0) + 1
            for task in self._t.tasks.values():
                if task.state != "done":
                    counts[f"task.{task.state}"] = counts.get(f"task.{task.state}", 0) + 1
        return counts

    def close(self) -> None:
        """Nothing to close."""


def page(rows: list[Any], limit: int) -> Page:
    """The first `limit` of rows that were read one further, and where the rest begins."""
    shown = rows[:limit]
    return Page(shown, shown[-1].no if len(rows) > limit else None)


def _shown(run: Run, where: RunFilter) -> bool:
    return (
        run.scope == where.scope
        and where.status in (None, run.status)
        and where.result_status in (None, run.result_status)
        and where.name in (None, run.name)
        and where.event_no in (None, run.event_no)
        and where.hold in (None, run.hold)
        and (not where.attention or run.needs_attention)
        and where.fits_tags(run.tags)
    )

"""A JSON file for each event: an export that follows the commits and that nothing reads back (source: spec codex-flows
4.4; KERNEL, "JSON file per event").

Files are not fsynced. What is missing is written when the server starts, and files of events that retention has
deleted go.
"""

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Collection, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from stepwell.engine.engine import Engine
from stepwell.engine.roles import Role
from stepwell.flows.events import event_view, flow_event
from stepwell.model.rows import Event
from stepwell.store.port import Reader

log = logging.getLogger("stepwell.export")
MAX_NAME = 64
PAGE = 25
#: After each page it rests so many times as long as it took while others commit, and as long as it took while nobody
#: does: intake comes first, and files follow when there is time.
REST_BUSY, REST_IDLE = 15, 1
#: Where several lanes commit, an event may come after one with a higher number: so far back is looked each time, and
#: at all of them with each sweep.
BEHIND = 100
#: Old files that one sweep looks at.
SWEPT = 100_000
#: How often files of deleted events are looked for, and how long after a failure it is tried again, in seconds.
SWEEP_S = 3_600.0
RETRY_S = 5.0
DAY_S = 86_400.0
_OURS = re.compile(rf"[a-z0-9._-]{{1,{MAX_NAME}}}-[0-9a-f]{{12}}\.json")
_LEFT = re.compile(rf"\.{_OURS.pattern}\.[0-9]+")


def event_file_name(event_id: str) -> str:
    """The name of an event's file: legible, and one for each id, whatever the id holds."""
    safe = re.sub(r"[^a-z0-9._-]+", "-", event_id.lower()).strip("-")[:MAX_NAME] or "event"
    return f"{safe}-{sha256(event_id.encode()).hexdigest()[:12]}.json"


class _Id(msgspec.Struct):
    id: str


class EventFiles(Role):
    """Keeps a folder with one file for each event of a scope. A folder that cannot be written harms nobody else."""

    name = "event-files"

    def __init__(self, engine: Engine, folder: Path, *, scope: str = "main", wait_s: float = 1.0) -> None:
        super().__init__(wait_s=wait_s)
        self._engine, self._folder, self._scope = engine, folder, scope
        self._after, self._behind = 0, BEHIND if engine.store.many_lanes else 0
        self._swept_at = float("-inf")
        self._failing = False

    def start(self) -> None:
        self._hint = self._engine.ready_hint()
        super().start()

    async def stop(self) -> None:
        await super().stop()
        self._engine.drop_hint(self._hint)

    async def work(self) -> float:
        try:
            await self._export()
            if time.monotonic() - self._swept_at >= SWEEP_S:
                await self._sweep()
                if self._behind and self._swept_at > 0:  # the first time all were just looked at
                    self._after = 0
                self._swept_at = time.monotonic()
        except OSError as error:
            if not self._failing:
                log.warning("event files in %s cannot be written, tried again until they can: %s", self._folder, error)
            self._failing = True
            return RETRY_S
        if self._failing:
            log.warning("event files in %s are written again", self._folder)
        self._failing = False
        return self.wait_s

    async def _export(self) -> None:
        self._after = max(0, self._after - self._behind)
        while events := await self._engine.read(lambda reader: reader.scan_events(after=self._after, limit=PAGE)):
            began, commits = time.monotonic(), self._engine.lanes.commits
            mine = [event for event in events if event.scope == self._scope]
            await asyncio.to_thread(_write_missing, self._folder, mine)
            self._after = events[-1].no
            took_s = time.monotonic() - began
            await asyncio.sleep(took_s * REST_IDLE)
            if self._engine.lanes.commits != commits:
                await asyncio.sleep(min(took_s * (REST_BUSY - REST_IDLE), self.wait_s))

    async def _sweep(self) -> None:
        """Deletes files of events that are no more, of its own names only, past the retention."""
        old_s = self._engine.settings.event_retention_days * DAY_S
        names = await asyncio.to_thread(_old_names, self._folder, time.time(), old_s)
        for start in range(0, len(names), PAGE):
            ids = await asyncio.to_thread(_ids, self._folder, names[start : start + PAGE])
            known = await self._engine.read(partial(_known, self._scope, ids.values()))
            await asyncio.to_thread(_delete, self._folder, [name for name in ids if ids[name] not in known])


def _write_missing(folder: Path, events: Sequence[Event]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for event in events:
        path = folder / event_file_name(event.id)
        if not _is_there(path):
            _write(path, event)


def _is_there(path: Path) -> bool:
    """A file without bytes is what a power cut leaves of one that was not fsynced."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _write(path: Path, event: Event) -> None:
    text = msgspec.json.format(msgspec.json.encode(event_view(flow_event(event))), indent=2) + b"\n"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(text)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _old_names(folder: Path, now_s: float, old_s: float) -> list[str]:
    """Files of ours that are older than `old_s`, `SWEPT` at most.

    What a write that was killed has left goes after a day.
    """
    names: list[str] = []
    if not folder.is_dir():
        return names
    with os.scandir(folder) as found:
        for one in found:
            ours, left = _OURS.fullmatch(one.name), _LEFT.fullmatch(one.name)
            if not (ours or left) or not one.is_file(follow_symlinks=False):
                continue
            with contextlib.suppress(FileNotFoundError):
                age_s = now_s - one.stat(follow_symlinks=False).st_mtime
                if left and age_s > DAY_S:
                    (folder / one.name).unlink()
                elif ours and age_s > old_s:
                    names.append(one.name)
            if len(names) == SWEPT:
                break
    return names


def _ids(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Whose files they are; a file that does not say so, or has another's name, is not ours."""
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError, UnicodeError):
            event_id = msgspec.json.decode((folder / name).read_bytes(), type=_Id).id
            if event_file_name(event_id) == name:
                found[name] = event_id
    return found


def _known(scope: str, ids: Collection[str], reader: Reader) -> set[str]:
    return {event_id for event_id in ids if reader.event(scope, event_id) is not None}


def _delete(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)

"""Taking over what codex-flow-systemd-local has done: its rows become events and runs here, with their ids and times
(source: spec codex-flows 4.2 to 4.4 and 4.9).

What the original knew is kept; what it did not know is not made up. A run whose end nobody saw is failed, and says so.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct, field

from stepwell.engine.engine import Engine
from stepwell.flows.backend import needs_flow, new_event
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.jsonvalue import Bounds, parse_json
from stepwell.flows.original import Counts, Original, Row
from stepwell.flows.result import STATUSES
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, StepwellError, Unavailable
from stepwell.model.settings import Settings
from stepwell.model.words import OutputKind
from stepwell.store.memory import MemoryStore

NAME = "codex-flow-systemd-local"
DAY_MS = 86_400_000
#: What is sent to the kernel at once, in events and in characters; and how many refusals are told one by one.
BATCH = 100
BATCH_CHARS = 32 * 1024 * 1024
TOLD = 1_000
CHUNK = 64 * 1024
TAIL = 4_096
CUT = "[output cut here when it was imported]\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXITED = re.compile(r"exited with (\d+)$")
_LOST = {
    "running": "was running when it was taken over; its end is not known",
    "queued": "was queued when it was taken over; it is not known whether it ran",
}

Verdict = c.Accepted | StepwellError
#: Adopts events, or says why not: one answer for each.
Desk = Callable[[Sequence[c.AdoptEvent]], Awaitable[list[Verdict]]]


class Refusal(Struct, frozen=True):
    """A row that stays out; `kind` is event or run."""

    id: str
    kind: str
    reason: str


class Summary(Struct):
    """What came of it.

    `seen`: events so far; `lost`: those of the runs whose end is not known; `dropped_*`: what retention would delete;
    `refusals`: how many, of which `refused` has the first.
    """

    seen: int = 0
    events: int = 0
    runs: int = 0
    lost: int = 0
    present: int = 0
    dropped_events: int = 0
    dropped_runs: int = 0
    refusals: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, kind: str, row_id: str, reason: str) -> None:
        """Counts it, and keeps the first `TOLD`."""
        self.refusals += 1
        if len(self.refused) < TOLD:
            self.refused.append(Refusal(row_id, kind, reason))


# ── one row ──────────────────────────────────────────────────────────────────────────────────────────────────────


def event_of(row: Row, *, max_bytes: int) -> FlowEvent:
    """The event as its sender sent it. Raises `Invalid` or `TooLarge` for a row that does not hold one."""
    raw_text, payload_text = _need(row, "raw_json"), _need(row, "payload_json")
    bounds = Bounds(max_bytes=max_bytes)
    raw = parse_json(raw_text, what="raw_json", bounds=bounds)
    event = parse_event(raw, now_iso=_need(row, "received_at"), max_bytes=max_bytes)
    if event.id != _need(row, "id"):
        raise Invalid(f"raw_json is of the event {event.id!r:.80}")
    if parse_json(payload_text, what="payload_json", bounds=bounds) != event.payload:
        raise Invalid("payload_json is not the payload in raw_json")
    return event


def run_of(row: Row, replay: int, *, now: int) -> c.AdoptedRun:
    """An ended run. Raises `Invalid` for a row that does not hold one."""
    status, flow = _need(row, "status"), _need(row, "flow_name")
    created_at = time_of(row, "created_at")
    started_at = max(created_at, time_of(row, "started_at")) if row["started_at"] else None
    lost = status in _LOST
    if not lost and status not in ("completed", "failed"):
        raise Invalid(f"its status is {status!r:.80}")
    ended_at = now if lost else time_of(row, "completed_at") if row["completed_at"] else created_at
    result = _result(row)
    said = result.get("status") if isinstance(result, dict) else None
    return c.AdoptedRun(
        id=_need(row, "id"),
        flow=flow,
        step=_need(row, "step_name"),
        created_at=created_at,
        started_at=started_at,
        ended_at=max(ended_at, started_at or created_at),
        status="completed" if status == "completed" else "failed",
        requires=needs_flow(flow),
        replay=replay,
        result=None if result is None else _json(result),
        result_status=said if said in STATUSES else None,
        error=None if status == "completed" else _json(_error(row, status)),
        tags=_json(_tags(row)),
        output=(*_said(row, "stdout"), *_said(row, "stderr")),
    )


def time_of(row: Row, name: str) -> int:
    """An ISO-8601 time as milliseconds since the epoch; without a zone it is UTC."""
    text = _need(row, name)
    try:
        at = datetime.fromisoformat(text)
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise Invalid(f"{name} is {text!r:.80}, which is no time") from None


def replay_numbers(rows: Sequence[Row]) -> list[int]:
    """Of each run of an event, oldest first: 0, or of which replay of its step it is."""
    counts: Counter[tuple[Any, Any]] = Counter()
    numbers: list[int] = []
    for row in rows:
        replayed = (row["id"] or b"").endswith(b"_replay")
        counts[row["flow_name"], row["step_name"]] += replayed
        numbers.append(counts[row["flow_name"], row["step_name"]] if replayed else 0)
    return numbers


def _need(row: Row, name: str) -> str:
    value = row[name]
    if value is None:
        raise Invalid(f"{name} is null")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8") from None


def _result(row: Row) -> Any:
    """The FLOW_RESULT in the report {flow, step, result}."""
    if row["result_json"] is None:
        return None
    text = _need(row, "result_json")
    report = parse_json(text, what="result_json", bounds=Bounds(max_bytes=len(text) * 4))
    return report["result"] if isinstance(report, dict) and "result" in report else report


def _error(row: Row, status: str) -> dict[str, Any]:
    if status in _LOST:
        hint = "See what it has done, and then run it again with `stepwell runs retry`."
        return {"type": "lost", "message": _LOST[status], "hint": hint}
    message = (row["error"] or b"").decode(errors="replace")[:TAIL]
    error: dict[str, Any] = {"type": "failed", "message": message or "the original does not say why it failed"}
    exited = _EXITED.search(message)
    if exited is not None:
        error["exit_code"] = int(exited[1][:9])
    if row["stderr"]:
        error["stderr"] = row["stderr"].decode(errors="replace")[-TAIL:]
    return error


def _tags(row: Row) -> dict[str, str]:
    names = {"backend": "backend", "executor": "executor", "unit": "unit", "event_path": "eventPath"}
    tags = {tag: row[name].decode(errors="replace") for name, tag in names.items() if row[name] is not None}
    return {"importedFrom": NAME, **tags}


def _said(row: Row, stream: OutputKind) -> list[tuple[OutputKind, str]]:
    text = (row[stream] or b"").decode(errors="replace")
    chunks = [(stream, text[start : start + CHUNK]) for start in range(0, len(text), CHUNK)]
    mark: OutputKind = "system"
    return [*chunks, (mark, CUT)] if row[f"{stream}_cut"] else chunks


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────


def needed_days(original: Original, now: int) -> int:
    """How many days of retention keep all that there is. Rows whose times are broken stay out anyhow."""
    names = ("event", "status", "created_at", "started_at", "completed_at")
    oldest = now
    for values in original.times():
        row: Row = dict(zip(names, values, strict=True))
        try:
            if row["status"] is None:
                oldest = min(oldest, time_of(row, "event"))
            elif row["status"] not in (b"running", b"queued"):
                oldest = min(oldest, _end(row))
        except Invalid:
            continue
    return (now - oldest) // DAY_MS + 1


def _end(row: Row) -> int:
    return max(time_of(row, name) for name in ("created_at", "started_at", "completed_at") if row[name])


def check_retention(original: Original, settings: Settings, now: int) -> None:
    """Refuses what would be deleted as soon as it is here."""
    days = needed_days(original, now)
    if days > settings.event_retention_days:
        raise Invalid(
            f"the oldest run or event in {original.path} is {days - 1} days old, and what ended more than "
            f"{settings.event_retention_days} days ago is deleted",
            hint=f"Set STEPWELL_EVENT_RETENTION_DAYS to {days} or more, here and for the server, or leave the old ones "
            "out with --drop-old.",
            needed_days=days,
        )


def adopt_in(engine: Engine) -> Desk:
    """Adopts for good."""

    async def desk(commands: Sequence[c.AdoptEvent]) -> list[Verdict]:
        replies = await asyncio.gather(*map(engine.submit, commands), return_exceptions=True)
        return [_verdict(reply) for reply in replies]

    return desk


def _verdict(reply: Any) -> Verdict:
    if isinstance(reply, Unavailable) or (isinstance(reply, BaseException) and not isinstance(reply, StepwellError)):
        raise reply
    verdict: Verdict = reply
    return verdict


def rehearse_in(engine: Engine | None, settings: Settings, clock_ms: Callable[[], int]) -> Desk:
    """Says what adopting would answer: what is not in `engine` yet is adopted in memory, and forgotten."""

    async def known(command: c.AdoptEvent) -> Verdict | None:
        event = None if engine is None else await engine.read(lambda reader: reader.event("main", command.event.id))
        if event is None:
            return None
        if event.body_hash != command.event.body_hash:
            return Invalid("it was accepted before with another body")
        return c.Accepted("present", event.id, [], 0)

    async def desk(commands: Sequence[c.AdoptEvent]) -> list[Verdict]:
        async with Engine(MemoryStore(), settings=settings, clock_ms=clock_ms, roles=False) as memory:
            fresh = adopt_in(memory)
            return [await known(command) or (await fresh([command]))[0] for command in commands]

    return desk


async def take_over(
    original: Original,
    desk: Desk,
    *,
    settings: Settings,
    now: int,
    drop_old: bool = False,
    progress: Callable[[Summary, Counts], None] = lambda _, __: None,
) -> Summary:
    """Brings everything that can be brought; what cannot is named in the summary. Again, it finds all of it present."""
    summary, counts = Summary(), original.counts()
    batch: list[c.AdoptEvent] = []
    size = 0
    for page in original.events():
        for number, row in page:
            command = _command(original, number, row, summary, settings, now, drop_old=drop_old)
            if command is not None:
                batch.append(command)
                size += _size(command)
            if len(batch) >= BATCH or size >= BATCH_CHARS:
                _count(summary, batch, await desk(batch))
                batch, size = [], 0
        progress(summary, counts)
    _count(summary, batch, await desk(batch))
    for stray in original.strays():
        summary.refuse("run", _shown(stray, 0), "its event is not there")
    progress(summary, counts)
    return summary


def _command(
    original: Original, number: int, row: Row, summary: Summary, settings: Settings, now: int, *, drop_old: bool
) -> c.AdoptEvent | None:
    summary.seen += 1
    event_id = _shown(row["id"], number)
    try:
        event, created_at = event_of(row, max_bytes=settings.payload_bytes), time_of(row, "created_at")
        rows = original.runs(row["id"])
    except StepwellError as refusal:
        summary.refuse("event", event_id, f"{refusal.message}; its runs stay out with it")
        return None
    before = now - settings.event_retention_days * DAY_MS if drop_old else 0
    runs: list[c.AdoptedRun] = []
    for one, replay in zip(rows, replay_numbers(rows), strict=True):
        try:
            run = run_of(one, replay, now=now)
        except StepwellError as refusal:
            summary.refuse("run", _shown(one["id"], 0), refusal.message)
            continue
        if run.ended_at < before:
            summary.dropped_runs += 1
        else:
            runs.append(run)
    if not runs and created_at < before:
        summary.dropped_events += 1
        return None
    return c.AdoptEvent(new_event(event), created_at, tuple(runs), worker=NAME, by=f"import {NAME}")


def _shown(row_id: bytes | None, number: int) -> str:
    return f"(row {number}, without an id)" if row_id is None else row_id.decode(errors="backslashreplace")


def _size(command: c.AdoptEvent) -> int:
    return len(command.event.payload) + sum(len(text) for run in command.runs for _, text in run.output)


def _count(summary: Summary, commands: Sequence[c.AdoptEvent], verdicts: Sequence[Verdict]) -> None:
    for command, verdict in zip(commands, verdicts, strict=True):
        if isinstance(verdict, StepwellError):
            summary.refuse("event", command.event.id, verdict.message)
        elif verdict.status == "present":
            summary.present += 1
        else:
            summary.events += 1
            summary.runs += len(command.runs)
            summary.lost += sum((run.error or "").startswith('{"type":"lost"') for run in command.runs)

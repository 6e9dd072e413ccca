"""JSON of a server as views, whoever wrote it: ours or one of the seed's backends (source: spec codex-flows 6.1).

Unknown keys are ignored, and a key of a wrong type is as good as none: a client must be able to show what is there.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from stepwell.client.views import (
    SEED_ATTENTION,
    AttemptView,
    DispatchResult,
    EventView,
    OutputChunk,
    OutputPage,
    Page,
    RunView,
)
from stepwell.model.words import RESULT_STATUSES

Json = Mapping[str, Any]
_LAST_MS = 253_402_300_799_999  # of the year 9999


def run_of(data: Any) -> RunView:
    """One run. Its attention is what the server says; without a word of it, as in the seed."""
    view = _object(data)
    result, process = _result(view), _text(view, "status", "processStatus")
    said = _word(view.get("resultStatus")) or _word(_object(result).get("status")) or _word(process)
    effective = said or process or "unknown"
    attempts = tuple(map(attempt_of, _list(view, "attempts")))
    attention = view.get("needsAttention")
    return RunView(
        id=_text(view, "id", "runId") or "",
        event_id=_text(view, "eventId"),
        flow_name=_text(view, "flowName"),
        flow_version=_written(view, "flowVersion", "version"),
        step_name=_text(view, "stepName"),
        runner=_text(view, "runner"),
        backend=_text(view, "backend"),
        executor=_text(view, "executor"),
        process_status=process,
        result_status=said,
        effective_status=effective,
        needs_attention=attention if isinstance(attention, bool) else effective in SEED_ATTENTION,
        hold=_text(view, "hold"),
        replay=_whole(view, "replay"),
        attempt_count=_whole(view, "attemptCount") or len(attempts),
        attempts=attempts,
        output=_output(view),
        result=result,
        error=_error(view),
        failure=view.get("failure"),
        why=_text(view, "why"),
        next_event_ids=_texts(view, "nextEventIds"),
        created_at=_time(view, "createdAt"),
        started_at=_time(view, "startedAt"),
        completed_at=_time(view, "finishedAt", "completedAt"),
        updated_at=_time(view, "updatedAt"),
        raw=dict(view),
    )


def attempt_of(data: Any) -> AttemptView:
    """One attempt; the Convex component has other names for some of it."""
    view = _object(data)
    return AttemptView(
        id=_text(view, "id", "attemptId") or "",
        attempt=_whole(view, "attempt") or _whole(view, "attemptNumber"),
        status=_text(view, "status"),
        worker=_text(view, "worker", "workerId"),
        executor=_text(view, "executor"),
        started_at=_time(view, "startedAt", "createdAt"),
        ended_at=_time(view, "endedAt", "completedAt"),
        ended=_text(view, "ended", "status"),
        error=_error(view),
        raw=dict(view),
    )


def chunk_of(data: Any) -> OutputChunk:
    """One piece of output."""
    view = _object(data)
    return OutputChunk(
        n=_whole(view, "n"),
        attempt=_whole(view, "attempt"),
        kind=_text(view, "kind") or "stdout",
        text=_text(view, "text") or "",
        at=_time(view, "at", "createdAt"),
    )


def event_of(data: Any, runs: Iterable[Any] = ()) -> EventView:
    """One event, and the runs that were told beside it."""
    view = _object(data)
    seen = tuple(map(run_of, [*runs, *_list(view, "runs")]))
    return EventView(
        id=_text(view, "id", "eventId") or "",
        type=_text(view, "type"),
        source=_text(view, "source"),
        occurred_at=_time(view, "occurredAt"),
        received_at=_time(view, "receivedAt"),
        payload=view.get("payload"),
        run_ids=_texts(view, "runIds") or tuple(run.id for run in seen),
        runs=seen,
        matched=_whole(view, "matched") if "matched" in view else None,
        replays=_whole(view, "replays"),
        misses=tuple(dict(_object(one)) for one in _list(view, "misses")),
        cause=view.get("cause"),
        depth=_whole(view, "depth"),
        created_at=_time(view, "createdAt"),
        raw=dict(view),
    )


def dispatched_of(view: Json) -> DispatchResult:
    """The answer to an event or a replay."""
    status, runs = _text(view, "status") or "accepted", tuple(map(run_of, _list(view, "runs")))
    ended = view.get("ended")
    return DispatchResult(
        status=status,
        event_id=_text(view, "eventId") or "",
        run_ids=_texts(view, "runIds") or tuple(run.id for run in runs),
        matched=_whole(view, "matched"),
        idempotent=view.get("idempotent") is True or status == "duplicate",
        runs=runs,
        ended=ended if isinstance(ended, bool) else None,
        raw=dict(view),
    )


def runs_of(view: Json) -> Page[RunView]:
    """{runs, cursor?}."""
    return Page(tuple(map(run_of, _list(view, "runs"))), _text(view, "cursor"))


def events_of(view: Json) -> Page[EventView]:
    """{events, cursor?}."""
    return Page(tuple(map(event_of, _list(view, "events"))), _text(view, "cursor"))


def output_of(view: Json) -> OutputPage:
    """{runId, output, next, ended}."""
    return OutputPage(
        run_id=_text(view, "runId") or "",
        chunks=tuple(map(chunk_of, _list(view, "output"))),
        next=_whole(view, "next"),
        ended=view.get("ended") is True,
    )


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _result(view: Json) -> Any:
    """`result`, else `resultJson` read; without the report {flow, step, result} around it (fault 13)."""
    found = view["result"] if "result" in view else _read(view.get("resultJson"))
    if isinstance(found, dict) and "status" not in found and {"flow", "step", "result"} <= found.keys():
        return found["result"]
    return found


def _read(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def _output(view: Json) -> tuple[OutputChunk, ...]:
    """`output`, else one piece each of what is told as stdout and stderr."""
    if isinstance(view.get("output"), list):
        return tuple(map(chunk_of, view["output"]))
    return tuple(
        OutputChunk(n=n, kind=kind, text=text)
        for n, (kind, text) in enumerate(((kind, _text(view, kind)) for kind in ("stdout", "stderr")), 1)
        if text
    )


def _error(view: Json) -> str | None:
    error = view.get("error")
    return error if isinstance(error, str) else _text(_object(error), "message")


# ── members of a type ────────────────────────────────────────────────────────────────────────────────────────────


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(view: Json, key: str) -> list[Any]:
    value = view.get(key)
    return value if isinstance(value, list) else []


def _text(view: Json, *keys: str) -> str | None:
    """The first of the keys that holds a text."""
    return next((value for key in keys if isinstance(value := view.get(key), str)), None)


def _texts(view: Json, key: str) -> tuple[str, ...]:
    return tuple(one for one in _list(view, key) if isinstance(one, str))


def _written(view: Json, *keys: str) -> str | None:
    """The same for what may be a number, too: a version."""
    found = next((view[key] for key in keys if isinstance(view.get(key), str | int | float)), None)
    return None if found is None else str(found)


def _whole(view: Json, key: str) -> int:
    value = view.get(key)
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value in RESULT_STATUSES else None


def _time(view: Json, *keys: str) -> str | None:
    """The first of the keys that holds a time: a text, or the milliseconds of the Convex component."""
    for value in (view.get(key) for key in keys):
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and 0 < value <= _LAST_MS:
            return datetime.fromtimestamp(value / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return None

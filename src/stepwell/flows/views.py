"""Events and runs as JSON: the seed's shapes with more beside (source: spec codex-flows 4.6). Times are ISO-8601."""

from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.flows.backend import iso_ms
from stepwell.flows.events import event_view, flow_event
from stepwell.model.commands import Accepted
from stepwell.model.entries import ENDS
from stepwell.model.ids import attempt_id
from stepwell.model.rows import Entry, Event, Output, Run
from stepwell.store.port import Reader

#: What the seed calls the system that keeps a run.
BACKEND = "stepwell"


def accepted_view(accepted: Accepted) -> dict[str, Any]:
    """{status, eventId, runIds, matched}."""
    return {
        "status": accepted.status,
        "eventId": accepted.event_id,
        "runIds": accepted.run_ids,
        "matched": accepted.matched,
    }


def stored_event_view(event: Event) -> dict[str, Any]:
    """The event as sent, and what is known of it: raw, createdAt, matched, replays, cause, why steps did not match."""
    sent = event_view(flow_event(event))
    view = {**sent, "raw": sent, "createdAt": iso_ms(event.created_at)}
    view |= {"matched": event.matched, "replays": event.replays}
    if event.cause is not None:
        view |= {"cause": event.cause, "depth": event.depth}
    if event.misses:
        view["misses"] = msgspec.json.decode(event.misses)
    return view


def event_id_of(reader: Reader, run: Run) -> str | None:
    """The id of the event that a run is of."""
    event = None if run.event_no is None else reader.event_by_no(run.event_no)
    return None if event is None else event.id


def run_view(run: Run, event_id: str | None = None) -> dict[str, Any]:
    """A run in a list. Absent instead of null.

    `result` is the FLOW_RESULT, `resultJson` the seed's report around it as a text, `error` a message, `failure` all
    that is known of it.
    """
    tags, result, failure = _plain(run.tags), _plain(run.result), _plain(run.error)
    flow, step = _step_of(run, tags)
    view: dict[str, Any] = {
        "id": run.id,
        "eventId": event_id,
        "flowName": flow or None,
        "stepName": step or None,
        "name": run.name,
        "kind": run.kind,
        "version": run.version or None,
        "status": run.status,
        "resultStatus": run.result_status,
        "needsAttention": run.needs_attention,
        "hold": run.hold,
        "generation": run.generation,
        "replay": run.replay or None,
        "backend": BACKEND,
        "result": result,
        "resultJson": _report(flow, step, result) if run.kind == "step" and result is not None else None,
        "error": _message(failure),
        "failure": failure,
        "tags": tags,
        "createdAt": iso_ms(run.created_at),
        "startedAt": None if run.started_at is None else iso_ms(run.started_at),
        "completedAt": None if run.ended_at is None else iso_ms(run.ended_at),
        "cancelRequestedAt": None if run.cancel_at is None else iso_ms(run.cancel_at),
    }
    return _present(view | _brought(tags))


def _step_of(run: Run, tags: Any) -> tuple[str, str]:
    """Flow and step of a run: in its name, or, for a workflow that an event started, in its tags. Else empty."""
    name: Any = run.name if run.kind == "step" else ""
    if run.kind == "workflow" and run.event_no is not None and isinstance(tags, dict):
        name = tags.get("flow", "")
    flow, _, step = name.partition("/") if isinstance(name, str) else ("", "", "")
    return flow, step


def _brought(tags: Any) -> dict[str, Any]:
    """What the system that a run was taken over from had done with it: its executor and the rest of the seed's keys."""
    if not isinstance(tags, dict) or "importedFrom" not in tags:
        return {}
    return {key: tags.get(key) for key in ("executor", "unit", "eventPath")}


def _present(view: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in view.items() if value is not None}


def _plain(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _report(flow: str, step: str, result: Any) -> str:
    return msgspec.json.encode({"flow": flow, "step": step, "result": result}).decode()


def _message(failure: Any) -> str | None:
    """What an error says in one text; errors of other shapes are shown as JSON."""
    if failure is None:
        return None
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else msgspec.json.encode(failure).decode()


def full_run_view(
    run: Run, event_id: str | None, why: str, entries: Sequence[Entry], output: Sequence[Output]
) -> dict[str, Any]:
    """A run by itself: with `why` it does not move (`worker.why` says it), its attempts, its journal, and the first of
    its output."""
    view = run_view(run, event_id)
    attempts = attempts_view(run, entries)
    view["why"] = why
    view["attempts"] = attempts
    view["journal"] = [entry_view(entry) for entry in entries]
    view["output"] = [output_view(one) for one in output]
    if attempts and "executor" in attempts[-1]:
        view["executor"] = attempts[-1]["executor"]
    sent = [event_id for entry in entries for event_id in _sent(entry)]
    if sent:
        view["nextEventIds"] = sent
    for stream in ("stdout", "stderr"):
        text = "".join(one.text for one in output if one.kind == stream)
        if text:
            view[stream] = text
    return view


def _sent(entry: Entry) -> list[str]:
    """The events that an entry tells the run to have sent: at its end, or from a step of a workflow."""
    if entry.kind == "event.sent":
        return [_plain(entry.data)["id"]]
    return list(_plain(entry.data).get("next", ())) if entry.kind in ENDS else []


def entry_view(entry: Entry) -> dict[str, Any]:
    """{seq, kind, key?, at, data}."""
    view = {"seq": entry.seq, "kind": entry.kind, "at": iso_ms(entry.at), "data": msgspec.json.decode(entry.data)}
    return view | ({"key": entry.key} if entry.key is not None else {})


def output_view(output: Output) -> dict[str, Any]:
    """{n, attempt, kind, at, text}."""
    at = iso_ms(output.at)
    return {"n": output.n, "attempt": output.attempt, "kind": output.kind, "at": at, "text": output.text}


def attempts_view(run: Run, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The attempts that the journal tells of: who, when, and how each ended."""
    attempts: list[dict[str, Any]] = []
    live: dict[int, dict[str, Any]] = {}
    for entry in entries:
        data = msgspec.json.decode(entry.data)
        if entry.kind == "attempt.started":
            one = {
                "id": attempt_id(run.id, data["task"], data["attempt"]),
                "attempt": data["attempt"],
                "worker": data["worker"],
                "executor": data.get("via"),
                "startedAt": iso_ms(entry.at),
            }
            attempts.append(one)
            live[data["task"]] = one
        elif entry.kind == "attempt.ended" and data["task"] in live:
            one = live.pop(data["task"])
            one |= {"endedAt": iso_ms(entry.at), "ended": data["reason"]}
            one |= {"error": _message(data.get("error")), "failure": data.get("error")}
            if data.get("next_at"):
                one["nextAt"] = iso_ms(data["next_at"])
        elif entry.kind.startswith("run.") and entry.kind not in ("run.created", "run.released"):
            for one in live.values():
                one |= {"endedAt": iso_ms(entry.at), "ended": entry.kind.removeprefix("run.")}
            live.clear()
    return [_present(one) for one in attempts]

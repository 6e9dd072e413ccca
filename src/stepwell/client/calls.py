"""The calls of a flow client, one function each, without I/O (source: spec codex-flows 6.1; routes: 4.6)."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from stepwell.client.exchange import Ask, Backoff, Talk, talk
from stepwell.client.options import seconds
from stepwell.client.reading import dispatched_of, event_of, events_of, output_of, run_of, runs_of
from stepwell.client.views import DispatchResult, EventView, OutputPage, Page, RunView
from stepwell.flows.events import FlowEvent, event_view
from stepwell.flows.jsonvalue import Bounds, check_json, is_unicode
from stepwell.model.errors import Invalid, Timeout
from stepwell.model.settings import RANGES

#: One request that waits asks the server for so long at most: shorter than proxies and firewalls keep silent lines.
SLICE_S = 20.0
#: What `wait=True` means, as on the server.
WAIT_S = 30.0
#: Between looks at a server that does not know how to wait.
POLL_S = 0.5
#: How long a look may take beyond the time that the caller has for waiting.
GRACE_S = 5.0
MAX_EVENT_BYTES = RANGES["payload_bytes"][1]
Wait = bool | float


class Calls:
    """Makes the talks of a client. `timeout_s` bounds each call beside the time that it waits on purpose."""

    def __init__(self, backoff: Backoff, timeout_s: float) -> None:
        self.backoff, self.timeout_s = backoff, timeout_s

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def list_runs(self, **where: Any) -> Talk[Page[RunView]]:
        return runs_of((yield from self._get("/runs", **where)))

    def get_run(self, run_id: str) -> Talk[RunView]:
        return run_of((yield from self._get(f"/runs/{segment('run_id', run_id)}")).get("run"))

    def list_events(self, **where: Any) -> Talk[Page[EventView]]:
        return events_of((yield from self._get("/events", **where)))

    def get_event(self, event_id: str) -> Talk[EventView]:
        said = yield from self._get(f"/events/{segment('event_id', event_id)}")
        runs = said.get("runs")
        return event_of(said.get("event"), runs if isinstance(runs, list) else ())

    def output(self, run_id: str, after: int, limit: int | None) -> Talk[OutputPage]:
        path = f"/runs/{segment('run_id', run_id)}/output"
        return output_of((yield from self._get(path, after=after, limit=limit)))

    def _get(self, path: str, **query: Any) -> Talk[dict[str, Any]]:
        return talk(Ask(path=path, query=parameters(query), timeout_s=self.timeout_s), self.backoff)

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def dispatch(self, event: Mapping[str, Any] | FlowEvent, wait: Wait) -> Talk[DispatchResult]:
        """An event's id makes it the same event however often it arrives, so it is sent again when it must be."""
        wait_s, body = wait_seconds(wait), event_bytes(event)
        query = (("wait", "true" if wait is True else _short(wait_s)),) if wait_s else ()
        return (yield from self._sent("/events", body, wait, query=query, safe=True))

    def replay(self, event_id: str, steps: Sequence[str], wait: Wait) -> Talk[DispatchResult]:
        wait_s, body = wait_seconds(wait), dict[str, Any]()
        if wait_s:
            body["wait"] = True if wait is True else min(wait_s, SLICE_S)
        if steps:
            body["steps"] = list(step_names(steps))
        path = f"/events/{segment('event_id', event_id)}/replay"
        return (yield from self._sent(path, msgspec.json.encode(body), wait, safe=False))

    def cancel(self, run_id: str, reason: str, terminate: bool) -> Talk[RunView]:
        body: dict[str, Any] = {"reason": reason} if reason else {}
        if terminate:
            body["terminate"] = True
        return self._run_after(f"/runs/{segment('run_id', run_id)}/cancel", body)

    def retry(self, run_id: str) -> Talk[RunView]:
        return self._run_after(f"/runs/{segment('run_id', run_id)}/retry", {})

    def _run_after(self, path: str, body: dict[str, Any]) -> Talk[RunView]:
        check_json(body, what="body", bounds=Bounds(max_bytes=MAX_EVENT_BYTES))
        text = msgspec.json.encode(body)
        said = yield from talk(
            Ask(method="POST", path=path, body=text, safe=False, timeout_s=self.timeout_s), self.backoff
        )
        return run_of(said.get("run"))

    def _sent(
        self, path: str, body: bytes, wait: Wait, *, query: tuple[tuple[str, str], ...] = (), safe: bool
    ) -> Talk[DispatchResult]:
        wait_s = wait_seconds(wait)
        ends = self.backoff.clock_s() + wait_s
        first_s = WAIT_S if wait is True else min(wait_s, SLICE_S)
        ask = Ask(
            method="POST", path=path, query=query, body=body, safe=safe, timeout_s=self.timeout_s + first_s
        )  # fmt: skip
        result = dispatched_of((yield from talk(ask, self.backoff)))
        return (yield from self._settled(result, ends)) if wait_s else result

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _settled(self, result: DispatchResult, ends: float) -> Talk[DispatchResult]:
        """The result with its runs when they have ended, or as they are when the time is over."""
        if result.ended:
            return result
        seen = {run.id: run for run in result.runs}
        for run_id in result.run_ids:
            if run_id not in seen or not seen[run_id].ended:
                seen[run_id] = yield from self._until_ended(run_id, ends)
        runs = tuple(seen[run_id] for run_id in result.run_ids)
        return msgspec.structs.replace(result, runs=runs, ended=all(run.ended for run in runs))

    def wait(self, run_id: str, timeout_s: float) -> Talk[RunView]:
        ends = self.backoff.clock_s() + seconds("timeout_s", timeout_s)
        run = yield from self._until_ended(run_id, ends)
        if run.ended:
            return run
        raise not_ended(run, timeout_s)

    def _until_ended(self, run_id: str, ends: float) -> Talk[RunView]:
        """Long polls, each bounded; a server that cannot wait is asked again after a pause."""
        path, pause_s = f"/runs/{segment('run_id', run_id)}", 0.0
        while True:
            left_s = max(ends - self.backoff.clock_s() - pause_s, 0.0)
            wait_s = min(left_s, SLICE_S)
            ask = Ask(
                path=path,
                query=(("wait", _short(wait_s)),) if wait_s >= 0.001 else (),
                timeout_s=wait_s + min(self.timeout_s, GRACE_S),
                pause_s=pause_s,
            )
            # A server that restarts is waited for; it is the caller's time that ends it.
            said = yield from talk(ask, self.backoff, stubborn=True)
            run = run_of(said.get("run"))
            if run.ended or self.backoff.clock_s() >= ends:
                return run
            pause_s = 0.0 if "ended" in said else min(POLL_S, max(ends - self.backoff.clock_s(), 0.0))


def not_ended(run: RunView, timeout_s: float) -> Timeout:
    """The error of a wait that was in vain: with what the run itself says of it."""
    hint = f"It says: {run.why}." if run.why else "Wait longer, or see why it does not end: `stepwell runs show`."
    state = run.process_status or "unknown"
    return Timeout(f"run {run.id} is {state} after {timeout_s:g} s", hint=hint, run_id=run.id, status=state)


# ── what callers give ────────────────────────────────────────────────────────────────────────────────────────────


def event_bytes(event: Mapping[str, Any] | FlowEvent) -> bytes:
    """An event as it is sent. Raises `Invalid` for what is none: without an id it could not be sent twice."""
    body = event_view(event) if isinstance(event, FlowEvent) else event
    if not isinstance(body, Mapping):
        raise Invalid("an event must be a mapping", hint='Give {"id": ..., "type": ..., "payload": ...}.')
    body = dict(body)
    check_json(body, what="event", bounds=Bounds(max_bytes=MAX_EVENT_BYTES))
    for key in ("id", "type"):
        if not isinstance(body.get(key), str) or not body[key]:
            raise Invalid(f"event.{key} must be a text that is not empty", hint=f"Give the event a {key}.", field=key)
    return msgspec.json.encode(body)


def segment(name: str, value: object) -> str:
    """An id as one segment of a path; `.` and `..` too, which URLs would resolve."""
    if not isinstance(value, str) or not value or not is_unicode(value):
        raise Invalid(f"{name} must be a text that is not empty", hint=f"Give the {name}, as a list shows it.")
    return value.replace(".", "%2E") if value in (".", "..") else quote(value, safe="")


def wait_seconds(wait: Wait) -> float:
    """True is `WAIT_S`, False nothing."""
    return (WAIT_S if wait else 0.0) if isinstance(wait, bool) else seconds("wait", wait)


def step_names(steps: Sequence[object]) -> tuple[str, ...]:
    """Names of flows or flow/step; one text alone is a mistake that Python would take for its letters."""
    names = tuple(one for one in steps if isinstance(one, str) and is_unicode(one))
    if isinstance(steps, str) or len(names) < len(steps):
        raise Invalid("steps must be a list of texts", hint='For example ["flow", "flow/step"].', field="steps")
    return names


def parameters(query: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A query without what is None; true and false in words."""
    found = []
    for key, value in query.items():
        if isinstance(value, str) and not is_unicode(value):
            raise Invalid(f"{key} has lone surrogates", hint="Give valid Unicode.", field=key)
        if value is not None:
            found.append((key, str(value).lower() if isinstance(value, bool) else str(value)))
    return tuple(found)


def _short(number: float) -> str:
    return f"{max(min(number, SLICE_S), 0.001):.3f}"

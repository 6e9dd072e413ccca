"""`/events`: accept, list, show, replay (source: spec codex-flows 4.6, faults 20 and 23)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stepwell.flows.backend import iso_ms
from stepwell.flows.events import parse_event
from stepwell.flows.views import accepted_view, event_id_of, run_view, stored_event_view
from stepwell.model.commands import Accepted
from stepwell.model.errors import Invalid, Unknown
from stepwell.model.rows import Run
from stepwell.server.http import MAX_LIMIT, Span, answer, body_of, fields_of, page_of, paged, path_id, query_of, span_of
from stepwell.server.waits import Waits, wait_of_body, wait_of_query
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.local import Local

MAX_STEPS = 100


class Events:
    """One method a route."""

    def __init__(self, local: Local, waits: Waits) -> None:
        self._engine, self._flows, self._waits = local.engine, local.flows, waits

    async def accept(self, request: Request) -> Response:
        """202 with {status, eventId, runIds, matched}, durable when it is sent; with `wait` also {runs, ended}."""
        wait_s, limit = wait_of_query(query_of(request)), self._engine.settings.payload_bytes
        event = parse_event(body_of(request), now_iso=iso_ms(self._engine.clock_ms()), max_bytes=limit)
        with self._waits.one() if wait_s else nullcontext():
            accepted = await self._flows.dispatch(event, by="http")
            return answer(await self._told(request, accepted, wait_s), 202)

    async def replay(self, request: Request) -> Response:
        """202 as for `accept`; the body, if there is one, {wait, steps}."""
        event_id = path_id(request, "the event id")
        fields = fields_of(body_of(request), ("wait", "steps"), self._engine.settings.payload_bytes)
        wait_s, steps = wait_of_body(fields) or wait_of_query(query_of(request)), _steps(fields)
        with self._waits.one() if wait_s else nullcontext():
            accepted = await self._flows.replay(event_id, steps=steps, by="http")
            return answer(await self._told(request, accepted, wait_s), 202)

    async def _told(self, request: Request, accepted: Accepted, wait_s: float) -> dict[str, Any]:
        view = accepted_view(accepted)
        if not wait_s:
            return view
        numbers = [run.no for run in await self._runs(accepted.run_ids)]
        await self._waits.until_ended(self._engine, request.receive, numbers, wait_s)
        runs = await self._runs(accepted.run_ids)
        return view | {
            "runs": [run_view(run, accepted.event_id) for run in runs[:MAX_LIMIT]],
            "ended": all(run.terminal for run in runs),
        }

    async def _runs(self, run_ids: Sequence[str]) -> list[Run]:
        def query(reader: Reader) -> list[Run]:
            return [run for run_id in run_ids if (run := reader.run("main", run_id)) is not None]

        return await self._engine.read(query)

    async def list(self, request: Request) -> Response:
        """{events, cursor?}, newest first."""
        query = query_of(request)
        span, of_type = span_of(query), query.get("type")

        def look(reader: Reader) -> dict[str, Any]:
            def fetch(limit: int, before: int | None) -> Any:
                return reader.list_events("main", of_type=of_type, limit=limit, before=before)

            return paged("events", *page_of(fetch, stored_event_view, span))

        return answer(await self._engine.read(look))

    async def show(self, request: Request) -> Response:
        """{event, runs, cursor?}: the first runs, newest first; more of them by `/runs?eventId=`."""
        event_id = path_id(request, "the event id")

        def look(reader: Reader) -> dict[str, Any] | None:
            event = reader.event("main", event_id)
            if event is None:
                return None
            where = RunFilter(event_no=event.no)
            return {"event": stored_event_view(event)} | runs_page(reader, where, Span(MAX_LIMIT, None))

        found = await self._engine.read(look)
        if found is None:
            raise Unknown(f"event not found: {event_id}", event_id=event_id)
        return answer(found)


def runs_page(reader: Reader, where: RunFilter, span: Span) -> dict[str, Any]:
    """{runs, cursor?} that fit a filter, newest first."""

    def fetch(limit: int, before: int | None) -> Any:
        return reader.list_runs(where, limit=limit, before=before)

    return paged("runs", *page_of(fetch, lambda run: run_view(run, event_id_of(reader, run)), span))


def _steps(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """`steps` of a replay: names of flows, or flow/step; empty for all."""
    steps = fields.get("steps")
    if steps is None:
        return ()
    if not isinstance(steps, list) or len(steps) > MAX_STEPS or not all(isinstance(one, str) for one in steps):
        raise Invalid(
            f"steps must be a list of at most {MAX_STEPS} texts",
            hint='For example ["flow", "flow/step"].',
            field="steps",
        )
    return tuple(steps)

"""`/runs`: list, show, cancel, retry (source: spec codex-flows 4.6, faults 20 and 23)."""

from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stepwell.engine.engine import Engine
from stepwell.flows.views import event_id_of, full_run_view, run_view
from stepwell.model import commands as c
from stepwell.model.errors import Unknown
from stepwell.model.rows import Entry, Output, Run
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.server.events import runs_page
from stepwell.server.http import (
    answer,
    body_of,
    fields_of,
    flag_field,
    one_of,
    path_id,
    query_of,
    span_of,
    text_field,
    within_bytes,
    yes,
)
from stepwell.server.waits import Waits, wait_of_query
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.local import Local
from stepwell.worker.why import why_of

#: What a run's own page shows of its journal and output: so many from the beginning.
SHOWN = 1_000
MAX_REASON_BYTES = 1_024


class Runs:
    """One method a route."""

    def __init__(self, local: Local, waits: Waits) -> None:
        self._engine, self._flows, self._waits = local.engine, local.flows, waits

    async def list(self, request: Request) -> Response:
        """{eventId?, runs, cursor?}, newest first; `eventId` is what was asked for."""
        query = query_of(request)
        span, event_id = span_of(query), query.get("eventId")
        status, result_status = one_of(query, "status", STATUSES), one_of(query, "resultStatus", RESULT_STATUSES)
        attention = yes(query, "needsAttention")

        def look(reader: Reader) -> dict[str, Any]:
            where = RunFilter(
                status=status,
                result_status=result_status,
                name=query.get("name"),
                attention=attention,
                event_no=None if event_id is None else _event_no(reader, event_id),
            )
            return runs_page(reader, where, span)

        asked = {} if event_id is None else {"eventId": event_id}
        return answer(asked | await self._engine.read(look))

    async def show(self, request: Request) -> Response:
        """{run}: with its attempts, journal and output; with `wait` when it has ended, and {run, ended}."""
        run_id, wait_s = path_id(request, "the run id"), wait_of_query(query_of(request))
        if wait_s and request.method == "GET":
            with self._waits.one():
                run = await need_run(self._engine, run_id)
                await self._waits.until_ended(self._engine, request.receive, [run.no], wait_s)
        run, view = await full_view(self._engine, run_id)
        return answer({"run": view} | ({"ended": run.terminal} if wait_s else {}))

    async def cancel(self, request: Request) -> Response:
        """202 with {run}: it was asked to end, or with `terminate` it has. The body, if any, {reason, terminate}."""
        run_id = path_id(request, "the run id")
        fields = fields_of(body_of(request), ("reason", "terminate"), self._engine.settings.payload_bytes)
        reason = text_field(fields, "reason", MAX_REASON_BYTES)
        terminate = flag_field(fields, "terminate")
        await need_run(self._engine, run_id)  # what is no id at all is not found, as it is everywhere
        kind = c.Terminate if terminate else c.Cancel
        return await self._changed(run_id, self._engine.submit(kind(run_id, by="http", reason=reason)))

    async def retry(self, request: Request) -> Response:
        """202 with {run}: an ended run begins its next generation, a held one goes on; any other is `open`."""
        run_id = path_id(request, "the run id")
        fields_of(body_of(request), (), self._engine.settings.payload_bytes)
        return await self._changed(run_id, self._flows.retry(run_id, by="http"))

    async def _changed(self, run_id: str, change: Awaitable[c.RunState]) -> Response:
        await change

        def look(reader: Reader) -> dict[str, Any]:
            run = known_run(reader, run_id)
            return run_view(run, event_id_of(reader, run))

        return answer({"run": await self._engine.read(look)}, 202)


async def need_run(engine: Engine, run_id: str) -> Run:
    """A run by its id, or `Unknown`."""
    return await engine.read(lambda reader: known_run(reader, run_id))


def known_run(reader: Reader, run_id: str) -> Run:
    """A run by its id, or `Unknown`."""
    run = reader.run("main", run_id)
    if run is None:
        raise Unknown(f"run not found: {run_id}", run_id=run_id)
    return run


async def full_view(engine: Engine, run_id: str, *, output: bool = True) -> tuple[Run, dict[str, Any]]:
    """A run and all that its own page shows, with what it said or without."""

    def look(reader: Reader) -> tuple[Run, dict[str, Any]]:
        run = known_run(reader, run_id)
        entries, said = _journal(reader, run), _output(reader, run) if output else []
        return run, full_run_view(run, event_id_of(reader, run), why_of(reader, run, engine), entries, said)

    return await engine.read(look)


def _journal(reader: Reader, run: Run) -> list[Entry]:
    return within_bytes(
        lambda after, limit: reader.entries(run.no, after=after, limit=limit),
        lambda entry: entry.seq,
        lambda entry: len(entry.data),
        SHOWN,
    )


def _output(reader: Reader, run: Run) -> list[Output]:
    return within_bytes(
        lambda after, limit: reader.output(run.no, after=after, limit=limit),
        lambda output: output.n,
        lambda output: len(output.text),
        SHOWN,
    )


def _event_no(reader: Reader, event_id: str) -> int:
    event = reader.event("main", event_id)
    return -1 if event is None else event.no

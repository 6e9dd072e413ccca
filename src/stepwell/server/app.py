"""The routes: `/events`, `/runs`, `/healthz`. Every answer is JSON; every error has `error`, `code` and `hint`."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from stepwell.flows.backend import iso_ms
from stepwell.flows.events import parse_event
from stepwell.flows.views import accepted_view, event_id_of, full_run_view, run_view, stored_event_view
from stepwell.model.errors import Internal, Invalid, StepwellError, TooLarge, Unavailable, Unknown
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.local import Local

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
#: What a run's own page shows of its journal and output: so many from the beginning.
SHOWN = 1_000
#: Answers to what is no route here, by status.
NO_ROUTE = {
    404: ("unknown", "See the README for the routes: /events, /runs, /healthz."),
    405: ("invalid", "Use another method on this route."),
}
Endpoint = Callable[[Request], Awaitable[Response]]


def answer(value: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def create_app(local: Local) -> Starlette:
    """The ASGI app over an open store."""
    views = Views(local)
    app = Starlette(
        routes=[
            Route("/healthz", views.healthz, methods=["GET"]),
            Route("/events", views.accept, methods=["POST"]),
            Route("/events", views.events, methods=["GET"]),
            Route("/events/{id:path}", views.event, methods=["GET"]),
            Route("/runs", views.runs, methods=["GET"]),
            Route("/runs/{id:path}", views.run, methods=["GET"]),
        ],
        exception_handlers={
            StepwellError: refused,
            HTTPException: no_route,
            ClientDisconnect: gone,
            Exception: surprised,
        },
    )
    app.router.redirect_slashes = False  # a redirect is no JSON, and `/events/` may be an id
    return app


async def refused(request: Request, error: Exception) -> Response:
    """A refusal by one of our own rules."""
    assert isinstance(error, StepwellError)
    return answer(error.as_json(), error.status)


async def no_route(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    code, hint = NO_ROUTE.get(error.status_code, ("invalid", ""))
    what = f"{request.method} {request.url.path}: {error.detail}"
    response = answer({"error": what, "code": code, "hint": hint}, error.status_code)
    if error.status_code == 405:
        response.headers["allow"] = ", ".join(sorted(_allowed(request)))
    return response


def _allowed(request: Request) -> set[str]:
    """The methods of all routes with this path."""
    here = [one for one in request.app.routes if one.matches(request.scope)[0] is not Match.NONE]
    return {method for route in here for method in route.methods}


async def gone(request: Request, error: Exception) -> Response:
    """The client hung up in the middle of its body: nobody hears this, and it is no trouble of ours."""
    return answer({"error": "the body did not come whole", "code": "invalid", "hint": "Send it again."}, 400)


async def surprised(request: Request, error: Exception) -> Response:
    """A bug of ours: the log has the stack, the answer has not."""
    return answer(Internal("something went wrong in the server; its log says what").as_json(), 500)


class Views:
    """One method a route."""

    def __init__(self, local: Local) -> None:
        self._engine, self._flows = local.engine, local.flows

    async def healthz(self, request: Request) -> Response:
        """200 while commits are possible; 503 with the reason when they are not."""
        if self._engine.trouble is not None:
            raise Unavailable(f"the store cannot write: {self._engine.trouble}")
        return answer({"ok": True})

    async def accept(self, request: Request) -> Response:
        """202 with {status, eventId, runIds, matched}: durable when it is sent."""
        limit = self._engine.settings.payload_bytes
        event = parse_event(await _body(request, limit), now_iso=iso_ms(self._engine.clock_ms()), max_bytes=limit)
        return answer(accepted_view(await self._flows.dispatch(event, by="http")), 202)

    async def events(self, request: Request) -> Response:
        limit, before = _page(request)
        of_type = request.query_params.get("type")
        page = await self._engine.read(lambda r: r.list_events("main", of_type=of_type, limit=limit, before=before))
        return answer(_paged("events", [stored_event_view(event) for event in page.rows], page.cursor))

    async def event(self, request: Request) -> Response:
        event_id = _id(request, "/events/")

        def query(reader: Reader) -> dict[str, Any] | None:
            event = reader.event("main", event_id)
            if event is None:
                return None
            runs = reader.list_runs(RunFilter(event_no=event.no), limit=MAX_LIMIT).rows
            return {"event": stored_event_view(event), "runs": [run_view(run, event.id) for run in runs]}

        found = await self._engine.read(query)
        if found is None:
            raise Unknown(f"event not found: {event_id}", event_id=event_id)
        return answer(found)

    async def runs(self, request: Request) -> Response:
        limit, before = _page(request)
        params = request.query_params
        _one_of("status", params.get("status"), STATUSES)
        _one_of("resultStatus", params.get("resultStatus"), RESULT_STATUSES)

        def query(reader: Reader) -> dict[str, Any]:
            event_no = None
            if (event_id := params.get("eventId")) is not None:
                event = reader.event("main", event_id)
                event_no = -1 if event is None else event.no
            where = RunFilter(
                status=params.get("status"),
                result_status=params.get("resultStatus"),
                name=params.get("name"),
                attention=params.get("needsAttention") in ("1", "true"),
                event_no=event_no,
            )
            page = reader.list_runs(where, limit=limit, before=before)
            views = [run_view(run, event_id_of(reader, run)) for run in page.rows]
            return _paged("runs", views, page.cursor)

        return answer(await self._engine.read(query))

    async def run(self, request: Request) -> Response:
        run_id = _id(request, "/runs/")

        def query(reader: Reader) -> dict[str, Any] | None:
            run = reader.run("main", run_id)
            if run is None:
                return None
            return full_run_view(
                run,
                event_id_of(reader, run),
                reader.tasks_of(run.no),
                reader.entries(run.no, limit=SHOWN),
                reader.output(run.no, limit=SHOWN),
                self._engine.clock_ms(),
            )

        found = await self._engine.read(query)
        if found is None:
            raise Unknown(f"run not found: {run_id}", run_id=run_id)
        return answer({"run": found})


def _paged(name: str, rows: list[dict[str, Any]], cursor: int | None) -> dict[str, Any]:
    return {name: rows} | ({} if cursor is None else {"cursor": str(cursor)})


def _id(request: Request, prefix: str) -> str:
    """The id as it was before it was put into the path: it may hold `/`, `%` and anything else."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    return unquote(raw.decode("latin-1").partition("?")[0].removeprefix(prefix), errors="replace")


def _page(request: Request) -> tuple[int, int | None]:
    return (
        min(_whole(request, "limit", DEFAULT_LIMIT) or DEFAULT_LIMIT, MAX_LIMIT),
        _whole(request, "cursor", None),
    )


def _whole(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Invalid(f"{name} must be a whole number, not {text!r}", hint="Leave it out for the default.", field=name)
    return int(text)


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        known = ", ".join(allowed)
        raise Invalid(f"{name} must be one of {known}, not {value!r}", hint="Leave it out for all.", field=name)


async def _body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the body has more than {limit:,} bytes", what="body", size=len(body), limit=limit)
    return bytes(body)

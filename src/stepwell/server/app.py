"""The ASGI app: the guard, the routes of the table, and what happens to errors. Every error is {error, code, hint}."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import Receive, Scope, Send

from stepwell.model.errors import Internal, StepwellError
from stepwell.server.events import Events
from stepwell.server.guard import Guard
from stepwell.server.health import Health, Requests
from stepwell.server.http import answer, refusal
from stepwell.server.openapi import document
from stepwell.server.options import ServerOptions
from stepwell.server.routes import OPERATIONS, by_path
from stepwell.server.runs import Runs
from stepwell.server.stream import Outputs
from stepwell.server.waits import Waits
from stepwell.worker.local import Local

Endpoint = Callable[[Request], Awaitable[Response]]
NO_ROUTE = "The routes are in docs/http.md and in /openapi.json. Write a / inside of an id as %2F."


def create_app(local: Local, options: ServerOptions | None = None) -> Starlette:
    """The ASGI app over an open store. `app.state.waits.close()` ends its waits and streams."""
    options = options or ServerOptions()
    engine, requests, waits = local.engine, Requests(), Waits(options.waits)
    guard = Middleware(Guard, options, engine.settings.payload_bytes, lambda: engine.clock_ms() / 1_000, requests)
    app = Starlette(
        routes=_routes(_endpoints(local, options, requests, waits)),
        middleware=[guard],
        exception_handlers={
            StepwellError: _refused,
            HTTPException: _no_route,
            Exception: _surprised,
        },
    )
    app.router.redirect_slashes = False  # a redirect is no JSON, and `/events/` may be an id
    app.state.waits = waits
    return app


def _endpoints(local: Local, options: ServerOptions, requests: Requests, waits: Waits) -> dict[str, Endpoint]:
    """What answers each operation of the table."""
    events, runs, health = Events(local, waits), Runs(local, waits), Health(local, requests, waits)
    described = answer(document(version("stepwell"), secured=options.secured))

    async def openapi(request: Request) -> Response:
        return described

    return {
        "healthz": health.healthz,
        "readyz": health.readyz,
        "metrics": health.metrics,
        "openapi": openapi,
        "listEvents": events.list,
        "sendEvent": events.accept,
        "sendFlowEvent": events.accept,
        "replayEvent": events.replay,
        "showEvent": events.show,
        "listRuns": runs.list,
        "showRun": runs.show,
        "cancelRun": runs.cancel,
        "retryRun": runs.retry,
        "runOutput": Outputs(local, waits, options.beat_s).output,
    }


def _routes(endpoints: Mapping[str, Endpoint]) -> list[Route]:
    """One route a path; an operation without an endpoint, or the other way round, does not start."""
    assert {one.id for one in OPERATIONS} == endpoints.keys()
    return [
        Route(
            path.replace("{id}", "{id:path}"),
            Methods(path, {method: endpoints[one.id] for method, one in found.items()}),
        )
        for path, found in by_path().items()
    ]


class Methods:
    """The endpoints of one path by method. HEAD is GET without a body; OPTIONS says which there are."""

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint]) -> None:
        self.path = path
        self._apps = {method: request_response(endpoint) for method, endpoint in endpoints.items()}
        if "GET" in self._apps:
            self._apps["HEAD"] = self._apps["GET"]
        self.allowed = ", ".join(sorted(self._apps))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["template"] = self.path
        found = self._apps.get(scope["method"])
        if found is not None:
            await found(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"allow": self.allowed})(scope, receive, send)
        else:
            raise HTTPException(405, "no such method here", headers={"allow": self.allowed})


async def _refused(request: Request, error: Exception) -> Response:
    """A refusal by one of our own rules."""
    assert isinstance(error, StepwellError)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("allow")
    hint = NO_ROUTE if allowed is None else f"Use {allowed}."
    what = f"{request.method} {request.scope['path']!r:.200}: {error.detail}"
    code = "unknown" if error.status_code == 404 else "invalid"
    said: dict[str, Any] = {"error": what, "code": code, "hint": hint}
    return answer(said, error.status_code, error.headers)


async def _surprised(request: Request, error: Exception) -> Response:
    """A bug of ours: the log has the stack, the answer has not."""
    return refusal(Internal("something went wrong in the server; its log says what"))

"""The one door: every request passes here before a route is looked for (source: spec codex-flows 4.7, faults 20-22)."""

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepwell.model.errors import Malformed, StepwellError, TooLarge, Unsupported
from stepwell.server import auth
from stepwell.server.health import Requests
from stepwell.server.http import BODY, raw_path, raw_target, refusal
from stepwell.server.options import ServerOptions
from stepwell.server.protocol import HEAD_BYTES

#: What a probe may ask without a name, a token or a known host: they say nothing that is anybody's.
OPEN = frozenset(("/healthz", "/readyz"))
READS = frozenset(("GET", "HEAD", "OPTIONS"))
_JSON_HINT = "Send content-type: application/json, for example curl -H 'content-type: application/json'."


class HeadTooLarge(TooLarge):
    """The same as for a body, with the status that HTTP has for it."""

    status = 431


class Guard:
    """ASGI middleware. What it lets through has a raw path to route on, and its body in memory."""

    def __init__(
        self, app: ASGIApp, options: ServerOptions, limit: int, clock_s: Callable[[], float], requests: Requests
    ) -> None:
        self._app, self._options, self._limit = app, options, limit
        self._clock_s, self._requests = clock_s, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it, so nothing of it gets past
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Ids may hold slashes: routes are found on what was sent, and only then is an id decoded.
        scope["path"] = raw_path(scope).decode("latin-1")
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._cors(scope)]
            await send(message)

        try:
            await self._admitted(scope, receive, counted)
        except ClientDisconnect:
            status = 499  # the client went: nobody hears an answer, and it is no trouble of ours
        finally:
            self._requests.count(scope.get("template", ""), scope["method"], status)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._preflight(scope):
            await Response(status_code=204)(scope, receive, send)
            return
        try:
            await self._admit(scope, receive)
        except StepwellError as error:
            await refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive) -> None:
        """Raises the refusal, or leaves the body in the scope."""
        headers, options = scope["headers"], self._options
        size = len(raw_target(scope)) + sum(len(name) + len(value) + 4 for name, value in headers)
        if size > HEAD_BYTES:
            raise HeadTooLarge("the head of the request is too large", what="head", size=size, limit=HEAD_BYTES)
        read = scope["method"] in READS
        if read and scope["path"] in OPEN:
            return
        if not options.secured:
            auth.check_host(headers, options)
        auth.check_origin(headers, options)
        if read:
            if options.secured:
                auth.check_bearer(headers, options)
        else:
            scope[BODY] = await self._body(scope, receive)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body, once it is known to be allowed. What can be refused before it is read, is."""
        headers, options = scope["headers"], self._options
        signed = auth.signature_of(headers, options, self._clock_s()) if options.secured else None
        _check_coding(headers)
        _check_length(headers, self._limit)
        body = await read_body(receive, self._limit, options.body_s)
        if signed is not None:
            auth.check_signature(options.secrets, signed, scope["method"], raw_target(scope), body)
        elif body:
            _check_type(headers)
        return body

    # ── pages of allowed origins ─────────────────────────────────────────────────────────────────────────────────

    def _preflight(self, scope: Scope) -> bool:
        """Whether a browser asks what a page of an allowed origin may do; it sends no credentials with that."""
        asks = any(name == b"access-control-request-method" for name, _ in scope["headers"])
        return asks and scope["method"] == "OPTIONS" and self._from_allowed(scope) is not None

    def _from_allowed(self, scope: Scope) -> bytes | None:
        """The origin of a request, if it was named as allowed."""
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        return origins[0] if len(origins) == 1 and auth.allowed_origin(origins[0], self._options) else None

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What tells a browser that a page may see the answer."""
        if not self._options.allowed_origins:
            return []
        origin = self._from_allowed(scope)
        if origin is None:
            return [(b"vary", b"origin")]
        allowed = b"authorization, content-type, last-event-id, x-api-key, x-flow-signature-256, x-flow-timestamp"
        return [
            (b"vary", b"origin"),
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", allowed),
        ]


async def read_body(receive: Receive, limit: int, within_s: float) -> bytes:
    """The body, read no further than `limit` bytes and no longer than `within_s`."""
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(len(body), limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        hint = "Send it again, faster, or in smaller parts."
        raise Malformed(f"the body did not come whole within {within_s:g} s", hint=hint) from None


def _check_coding(headers: auth.Headers) -> None:
    coding = (auth.header(headers, b"content-encoding") or b"identity").lower()
    if coding != b"identity":
        raise Unsupported(
            f"content-encoding {coding.decode('latin-1')!r:.80} is not taken", hint="Send the body as it is."
        )


def _check_length(headers: auth.Headers, limit: int) -> None:
    length = auth.header(headers, b"content-length") or b"0"
    if not length.isdigit() or len(length) > 18:
        raise Malformed("content-length is no number", hint="Leave it to your HTTP client.")
    if int(length) > limit:
        raise _too_large(int(length), limit)


def _check_type(headers: auth.Headers) -> None:
    media = (auth.header(headers, b"content-type") or b"application/json").partition(b";")[0].strip().lower()
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        raise Unsupported(f"content-type {media.decode('latin-1')!r:.80} is not JSON", hint=_JSON_HINT)


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit:,} bytes", what="body", size=size, limit=limit)

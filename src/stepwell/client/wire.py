"""Requests and failures in the terms of httpx2, for both shells; signatures (source: spec codex-flows 4.7).

With a timestamp the signed text is `<unix seconds>.<METHOD>.<path?query>.` and the body, without one the body alone.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode

import httpx2

from stepwell.client.exchange import Answer, Ask, Lost
from stepwell.client.options import ClientOptions
from stepwell.model.errors import Invalid, Malformed, StepwellError, TooLarge, Unavailable

#: A page of the server has 8 MiB of values at most; a run by itself two such parts. As text that can be more.
MAX_ANSWER_BYTES = 128 << 20
#: What httpx2 raises before a byte of the request has left.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, TimeoutError)


class Wire:
    """Writes requests for one server."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._base = options.base_url.rstrip("/")

    def request(
        self, http: httpx2.AsyncClient | httpx2.Client, ask: Ask, headers: Mapping[str, str], now_s: int
    ) -> httpx2.Request:
        """The request with its credentials. What the caller gave as a header goes before ours."""
        query = f"?{urlencode(ask.query, quote_via=quote)}" if ask.query else ""
        try:
            request = http.build_request(
                ask.method,
                self._base + ask.path + query,
                content=ask.body,
                headers={**self._own(ask), **headers},
                timeout=httpx2.Timeout(ask.timeout_s),
            )
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, ValueError) as error:
            raise Invalid(f"base_url cannot be used: {error}", hint="Correct base_url.") from error
        if self.options.secret is not None and ask.body is not None:
            self._sign(request, self.options.secret, ask.body, now_s)
        return request

    def _own(self, ask: Ask) -> dict[str, str]:
        own = {"accept": "application/json", **dict(ask.headers)}
        if ask.body is not None:
            own["content-type"] = "application/json"
        if self.options.token is not None:
            own["authorization"] = f"Bearer {self.options.token}"
        if self.options.api_key is not None:
            own["x-api-key"] = self.options.api_key
        return own

    def _sign(self, request: httpx2.Request, secret: str, body: bytes, now_s: int) -> None:
        head = b""
        if self.options.timestamp:
            request.headers["x-flow-timestamp"] = str(now_s)
            head = b"%d.%s.%s." % (now_s, request.method.encode(), request.url.raw_path)
        digest = hmac.new(secret.encode(), head + body, sha256).hexdigest()
        request.headers["x-flow-signature-256"] = f"sha256={digest}"

    def lost(self, error: Exception) -> Lost:
        """What a failure of httpx2 means to us."""
        found = self._found(error)
        found.__cause__ = error
        return Lost(found, sent=not isinstance(error, _UNSENT))

    def _found(self, error: Exception) -> StepwellError:
        what, base = f"{error}" or type(error).__name__, self._base
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            hint = f"Is the server running? Start it with `stepwell serve`, or correct base_url ({base})."
            return Unavailable(f"cannot connect to {base}: {what}", hint=hint)
        if isinstance(error, httpx2.TimeoutException | TimeoutError):
            hint = "See whether the server is well (/healthz), or raise timeout_s."
            return Unavailable(f"{base} did not answer in time", hint=hint)
        if isinstance(error, httpx2.DecodingError):
            return Malformed(f"{base} answered with what cannot be decoded: {what}", hint="Check the proxy before it.")
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
            return Invalid(f"{base} cannot be called: {what}", hint="Correct base_url.")
        return Unavailable(f"the connection to {base} was lost: {what}", hint="Is the server still running?")


def closed() -> Unavailable:
    """The error of a call on a client that was closed."""
    return Unavailable("the client is closed", hint="Make the call inside of its `with` block, or a new client.")


def collected(size: int) -> None:
    """Raises `TooLarge` once an answer has more bytes than any of ours."""
    if size > MAX_ANSWER_BYTES:
        hint = "Ask for less at once: a smaller limit, or pages."
        raise TooLarge("the answer is too large", hint=hint, what="answer", size=size, limit=MAX_ANSWER_BYTES)


def answer_of(response: httpx2.Response, body: bytes) -> Answer:
    """A response that was read."""
    return Answer(response.status_code, body, {key.lower(): value for key, value in response.headers.items()})


def http_options(timeout_s: float) -> dict[str, Any]:
    """How we make a client of httpx2: no redirects, since a signature is good for one address."""
    return {"timeout": httpx2.Timeout(timeout_s), "follow_redirects": False}

"""One connection: uvicorn's protocol with the bounds that it lacks, on heads, trailers and time.

uvicorn waits for ever for a head, keeps one of any size, and says errors of HTTP itself in plain text.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stepwell.server.options import ServerOptions

#: Line and headers, or trailers, of one message; and what framing a chunked body may take: a chunk of one byte is six.
HEAD_BYTES = 64 << 10
FRAMING = 8
STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
    503: b"HTTP/1.1 503 Service Unavailable",
}


def protocol_for(options: ServerOptions) -> type[asyncio.Protocol]:
    """uvicorn makes its protocols itself, from a class: this is one that knows the options."""

    class Bounded(BoundedProtocol):
        pass

    Bounded.options = options
    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head that is too large or too slow, and drops a client that takes nothing."""

    options: ServerOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._got = self._body = 0  # bytes of the present message
        self._in_message = self._head_done = self._answering = False
        self._slow: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: Any) -> None:  # uvloop's are no asyncio.Transport
        super().connection_made(transport)
        if len(self.connections) > self.options.connections:
            self._refuse(503, "unavailable", "too many connections", "Try again after a moment, or keep connections.")
            return
        self._allow(self.options.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._slow, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _allow(self, seconds: float | None) -> None:
        """What is under way must be through within so many seconds; None: no more hurry."""
        if self._slow is not None:
            self._slow.cancel()
        self._slow = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._head_done:
            self.transport.abort()
        elif self._answering:
            self._allow(self.options.head_s)  # an answer is under way: what came after its request does not cut it
        else:
            hint = "Send the whole head at once."
            self._refuse(408, "malformed", f"no whole request within {self.options.head_s:g} s", hint)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def _look_again(self) -> None:
        """Whether the client takes anything is seen by what is left: a slow one is not a stalled one."""
        left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self.options.stalled_s, self._stuck, left)

    def _stuck(self, left: int) -> None:
        if self.transport.get_write_buffer_size() >= left:
            self.transport.abort()
        else:
            self._look_again()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    # ── size ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._in_message and self._slow is None:
            self._head_done = False
            self._allow(self.options.head_s)
        self._got += len(data)
        super().data_received(data)
        if self._got - self._body > HEAD_BYTES + FRAMING * self._body and not self.transport.is_closing():
            self._too_large()

    def _too_large(self) -> None:
        if self._head_done:
            self.transport.abort()  # endless trailers or chunk extensions: an answer may be under way already
        else:
            self._refuse(
                431, "too_large", f"the head is larger than {HEAD_BYTES:,} bytes", "Send fewer, shorter headers."
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message, self._head_done = True, False
        self._got, self._body = 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # trailers are nothing that anybody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # may raise, for an address that it cannot take
        self._head_done = self._answering = True
        self._allow(None)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._got, self._body = 0, 0
        self._allow(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._answering = not self.cycle.response_complete  # of the last that was asked for in a pipeline
        if self._in_message and not self._answering and not self.transport.is_closing():
            self._allow(self.options.linger_s)  # who sends all of a body first reads the answer then

    # ── what is no HTTP ──────────────────────────────────────────────────────────────────────────────────────────

    def send_400_response(self, msg: str) -> None:
        if len(getattr(self, "url", b"")) > HEAD_BYTES:
            self._too_large()
        else:
            self._refuse(400, "malformed", msg, "Speak HTTP/1.1.")

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is not taken: the request was answered as it is, and what follows is none of ours."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _refuse(self, status: int, code: str, error: str, hint: str) -> None:
        body = msgspec.json.encode({"error": error, "code": code, "hint": hint})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d" % len(body)
        self.transport.write(b"\r\n".join((STATUS_LINES[status], head, b"", body)))
        self.transport.close()

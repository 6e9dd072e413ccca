"""The flow client over HTTP, for programs without an event loop: the same calls, the same rules."""

import inspect
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from stepwell.client.calls import Calls, Wait
from stepwell.client.exchange import Answer, Ask, Backoff, Lost, Talk
from stepwell.client.following import Following
from stepwell.client.options import ClientOptions, checked_headers
from stepwell.client.views import DispatchResult, EventView, OutputChunk, OutputPage, Page, RunView
from stepwell.client.wire import FAILURES, Wire, answer_of, closed, collected, http_options
from stepwell.engine.clock import steady_s, wall_ms
from stepwell.flows.events import FlowEvent

T = TypeVar("T")
Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


class BlockingFlowClient:
    """`FlowClient` without `await`; it may be used by several threads."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Headers | None = None,
        token: str | None = None,
        api_key: str | None = None,
        secret: str | None = None,
        timestamp: bool = True,
        timeout_s: float = 30.0,
        tries: int = 6,
        http: httpx2.Client | None = None,
    ) -> None:
        options = ClientOptions(
            base_url=base_url, token=token, api_key=api_key, secret=secret, timestamp=timestamp, timeout_s=timeout_s,
            tries=tries,
        )  # fmt: skip
        self._wire, self._headers, self._theirs = Wire(options), headers or {}, http is not None
        self._http = http or httpx2.Client(**http_options(timeout_s))
        backoff = Backoff(clock_s=steady_s, jitter=random.random, tries=tries)
        self._calls = Calls(backoff, options.timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections; not those of a client that was given as `http`."""
        if not self._theirs:
            self._http.close()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def list_runs(
        self,
        *,
        event_id: str | None = None,
        status: str | None = None,
        result_status: str | None = None,
        name: str | None = None,
        needs_attention: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[RunView]:
        """See `FlowClient.list_runs`."""
        return self._do(
            self._calls.list_runs(
                eventId=event_id, status=status, resultStatus=result_status, name=name, needsAttention=needs_attention,
                limit=limit, cursor=cursor,
            )
        )  # fmt: skip

    def get_run(self, run_id: str) -> RunView:
        """See `FlowClient.get_run`."""
        return self._do(self._calls.get_run(run_id))

    def list_events(
        self, *, type: str | None = None, limit: int | None = None, cursor: str | None = None  # noqa: A002 - its name
    ) -> Page[EventView]:  # fmt: skip
        """See `FlowClient.list_events`."""
        return self._do(self._calls.list_events(type=type, limit=limit, cursor=cursor))

    def get_event(self, event_id: str) -> EventView:
        """See `FlowClient.get_event`."""
        return self._do(self._calls.get_event(event_id))

    def output(self, run_id: str, after: int = 0, *, limit: int | None = None) -> OutputPage:
        """See `FlowClient.output`."""
        return self._do(self._calls.output(run_id, after, limit))

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def dispatch(self, event: Mapping[str, Any] | FlowEvent, *, wait: Wait = False) -> DispatchResult:
        """See `FlowClient.dispatch`."""
        return self._do(self._calls.dispatch(event, wait))

    def replay(self, event_id: str, *, steps: Sequence[str] = (), wait: Wait = False) -> DispatchResult:
        """See `FlowClient.replay`."""
        return self._do(self._calls.replay(event_id, steps, wait))

    def cancel(self, run_id: str, *, reason: str = "", terminate: bool = False) -> RunView:
        """See `FlowClient.cancel`."""
        return self._do(self._calls.cancel(run_id, reason, terminate))

    def retry(self, run_id: str) -> RunView:
        """See `FlowClient.retry`."""
        return self._do(self._calls.retry(run_id))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, run_id: str, timeout_s: float = 300.0) -> RunView:
        """See `FlowClient.wait`."""
        return self._do(self._calls.wait(run_id, timeout_s))

    def watch(self, run_id: str, after: int = 0) -> Iterator[OutputChunk | RunView]:
        """See `FlowClient.watch`."""
        following = Following(run_id, after, self._calls.backoff, self._calls.timeout_s)
        while not following.ended:
            ask = following.ask()
            time.sleep(ask.pause_s)
            got: Answer | Lost | None = None
            try:
                with self._opened(ask) as response:
                    if response.is_success:
                        following.check(response.headers.get("content-type", ""))
                        for data in response.iter_bytes():
                            yield from following.took(data)
                    else:
                        got = answer_of(response, _body(response, steady_s() + ask.timeout_s))
            except FAILURES as error:
                got = self._wire.lost(error)
            if not following.ended:
                following.lost(got)

    # ── the shell ────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, talk: Talk[T]) -> T:
        """Carries on one talk to its value."""
        try:
            ask = next(talk)
            while True:
                time.sleep(ask.pause_s)
                ask = talk.send(self._send(ask))
        except StopIteration as end:
            value: T = end.value
            return value

    def _send(self, ask: Ask) -> Answer | Lost:
        ends = steady_s() + ask.timeout_s
        try:
            with self._opened(ask) as response:
                return answer_of(response, _body(response, ends))
        except FAILURES as error:
            return self._wire.lost(error)

    @contextmanager
    def _opened(self, ask: Ask) -> Iterator[httpx2.Response]:
        given = self._headers() if callable(self._headers) else self._headers
        if inspect.iscoroutine(given):
            given.close()  # it is refused below, and nobody will await it
        headers = checked_headers(given)
        if self._http.is_closed:
            raise closed()
        request = self._wire.request(self._http, ask, headers, wall_ms() // 1_000)
        response = self._http.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()


def _body(response: httpx2.Response, ends: float) -> bytes:
    """All of it; a server that sends a byte now and then does not hold us past the end."""
    parts, size = list[bytes](), 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        collected(size)
        if steady_s() > ends:
            raise TimeoutError
    return b"".join(parts)

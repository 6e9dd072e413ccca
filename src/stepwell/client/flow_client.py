"""The flow client over HTTP, for asyncio (source: spec codex-flows 6.1)."""

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
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
AsyncHeaders = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]


class FlowClient:
    """Talks to one server. Use it as `async with FlowClient(url) as flows:`.

    Every failure is a `StepwellError` with a hint: the server's refusals by their code, `Unavailable` when it cannot be
    reached. Requests that may be sent twice are, with growing pauses, until `timeout_s` (seconds) or `tries` are over.
    `headers` may be a function, asked before each request; `http` a client of httpx2 with TLS or proxies of its own.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: AsyncHeaders | None = None,
        token: str | None = None,
        api_key: str | None = None,
        secret: str | None = None,
        timestamp: bool = True,
        timeout_s: float = 30.0,
        tries: int = 6,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        options = ClientOptions(
            base_url=base_url, token=token, api_key=api_key, secret=secret, timestamp=timestamp, timeout_s=timeout_s,
            tries=tries,
        )  # fmt: skip
        self._wire, self._headers, self._theirs = Wire(options), headers or {}, http is not None
        self._http = http or httpx2.AsyncClient(**http_options(timeout_s))
        backoff = Backoff(clock_s=steady_s, jitter=random.random, tries=tries)
        self._calls = Calls(backoff, options.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends its connections; not those of a client that was given as `http`."""
        if not self._theirs:
            await self._http.aclose()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def list_runs(
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
        """Runs, newest first: 50, or `limit` up to 500. `name` is FLOW/STEP."""
        return await self._do(
            self._calls.list_runs(
                eventId=event_id, status=status, resultStatus=result_status, name=name, needsAttention=needs_attention,
                limit=limit, cursor=cursor,
            )
        )  # fmt: skip

    async def get_run(self, run_id: str) -> RunView:
        """A run with its attempts and the beginning of its output. Raises `Unknown`."""
        return await self._do(self._calls.get_run(run_id))

    async def list_events(
        self, *, type: str | None = None, limit: int | None = None, cursor: str | None = None  # noqa: A002 - its name
    ) -> Page[EventView]:  # fmt: skip
        """Events, newest first: 50, or `limit` up to 500."""
        return await self._do(self._calls.list_events(type=type, limit=limit, cursor=cursor))

    async def get_event(self, event_id: str) -> EventView:
        """An event with its runs, newest first. Raises `Unknown`."""
        return await self._do(self._calls.get_event(event_id))

    async def output(self, run_id: str, after: int = 0, *, limit: int | None = None) -> OutputPage:
        """What a run said after a chunk's number: a page."""
        return await self._do(self._calls.output(run_id, after, limit))

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def dispatch(self, event: Mapping[str, Any] | FlowEvent, *, wait: Wait = False) -> DispatchResult:
        """Sends an event: durable when this returns. The same id and body again is a duplicate with the same runs.

        `wait`: seconds for its runs to end, True for 30; when they are over, the runs are answered as they are.
        Raises `Conflict` for another body under the same id, `Invalid` for what is no event.
        """
        return await self._do(self._calls.dispatch(event, wait))

    async def replay(self, event_id: str, *, steps: Sequence[str] = (), wait: Wait = False) -> DispatchResult:
        """Runs a stored event again on the flows as they are now; `steps` (flow or flow/step) for some only."""
        return await self._do(self._calls.replay(event_id, steps, wait))

    async def cancel(self, run_id: str, *, reason: str = "", terminate: bool = False) -> RunView:
        """Asks a run to end, or with `terminate` ends it. Raises `Ended` if it has."""
        return await self._do(self._calls.cancel(run_id, reason, terminate))

    async def retry(self, run_id: str) -> RunView:
        """Runs an ended run again, or lets a held one go on. Raises `Open` when there is nothing to retry."""
        return await self._do(self._calls.retry(run_id))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def wait(self, run_id: str, timeout_s: float = 300.0) -> RunView:
        """The run when it has ended. Raises `Timeout`, and waits for a server that restarts meanwhile."""
        return await self._do(self._calls.wait(run_id, timeout_s))

    async def watch(self, run_id: str, after: int = 0) -> AsyncIterator[OutputChunk | RunView]:
        """What a run says after a chunk's number, as it says it; at last the run, when it has ended.

        A connection that is lost is opened again where it was; `Unavailable` when that fails `tries` times in a row.
        """
        following = Following(run_id, after, self._calls.backoff, self._calls.timeout_s)
        while not following.ended:
            ask = following.ask()
            await asyncio.sleep(ask.pause_s)
            got: Answer | Lost | None = None
            try:
                async with self._opened(ask) as response:
                    if response.is_success:
                        following.check(response.headers.get("content-type", ""))
                        async for data in response.aiter_bytes():
                            for item in following.took(data):
                                yield item
                    else:
                        got = answer_of(response, await _body(response))
            except FAILURES as error:
                got = self._wire.lost(error)
            if not following.ended:
                following.lost(got)

    # ── the shell ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do(self, talk: Talk[T]) -> T:
        """Carries on one talk to its value."""
        try:
            ask = next(talk)
            while True:
                await asyncio.sleep(ask.pause_s)
                ask = talk.send(await self._send(ask))
        except StopIteration as end:
            value: T = end.value
            return value

    async def _send(self, ask: Ask) -> Answer | Lost:
        try:
            async with asyncio.timeout(ask.timeout_s), self._opened(ask) as response:
                return answer_of(response, await _body(response))
        except FAILURES as error:
            return self._wire.lost(error)

    @asynccontextmanager
    async def _opened(self, ask: Ask) -> AsyncIterator[httpx2.Response]:
        given = self._headers() if callable(self._headers) else self._headers
        headers = checked_headers(await given if inspect.isawaitable(given) else given)
        if self._http.is_closed:
            raise closed()
        request = self._wire.request(self._http, ask, headers, wall_ms() // 1_000)
        response = await self._http.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


async def _body(response: httpx2.Response) -> bytes:
    parts, size = list[bytes](), 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        collected(size)
    return b"".join(parts)

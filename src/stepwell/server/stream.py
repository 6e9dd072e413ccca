"""`/runs/{id}/output`: in pages, or live as Server-Sent Events (source: HTML standard, server-sent events)."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from stepwell.engine.engine import Engine
from stepwell.flows.views import output_view
from stepwell.model.errors import StepwellError
from stepwell.model.rows import Output, Run
from stepwell.server.auth import header
from stepwell.server.http import AT_ONCE, PAGE_BYTES, answer, limit_of, path_id, query_of, whole, yes
from stepwell.server.runs import full_view, known_run, need_run
from stepwell.server.waits import Waits
from stepwell.store.port import Reader
from stepwell.worker.local import Local

EVENTS = "text/event-stream"


class Outputs:
    """What a run says."""

    def __init__(self, local: Local, waits: Waits, beat_s: float) -> None:
        self._engine, self._waits, self._beat_s = local.engine, waits, beat_s

    async def output(self, request: Request) -> Response:
        """{runId, output, next, ended}; or the stream, for `Accept: text/event-stream` or `?stream=1`."""
        run_id, query = path_id(request, "the run id"), query_of(request)
        after, limit = whole(query, "after", 0), limit_of(query)
        if yes(query, "stream") or _wants_events(request):
            last = (header(request.scope["headers"], b"last-event-id") or b"").decode("latin-1")
            after = whole({"last-event-id": last}, "last-event-id", after)
            run = await need_run(self._engine, run_id)
            if request.method == "HEAD":
                return Response(media_type=EVENTS)
            return Stream(self._engine, self._waits, run, after, self._beat_s)
        return answer(await self._engine.read(partial(_page, run_id=run_id, after=after, limit=limit)))


def _wants_events(request: Request) -> bool:
    accept = ",".join(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"accept")
    return any(one.partition(";")[0].strip().lower() == EVENTS for one in accept.split(","))


def _page(reader: Reader, *, run_id: str, after: int, limit: int) -> dict[str, Any]:
    """Chunks after a number. `ended`: the run has, and this is the last of what it said."""
    run = known_run(reader, run_id)
    chunks, size, more = list[Output](), 0, True
    while more and len(chunks) < limit and size <= PAGE_BYTES:
        got = reader.output(run.no, after=chunks[-1].n if chunks else after, limit=min(AT_ONCE, limit - len(chunks)))
        chunks, size, more = [*chunks, *got], size + sum(len(one.text) for one in got), bool(got)
    last = chunks[-1].n if chunks else after
    ended = run.terminal and not reader.output(run.no, after=last, limit=1)
    return {"runId": run.id, "output": [output_view(one) for one in chunks], "next": last, "ended": ended}


class Stream(StreamingResponse):
    """One client that follows one run. It holds a few chunks at a time: who reads slowly is waited for."""

    def __init__(self, engine: Engine, waits: Waits, run: Run, after: int, beat_s: float) -> None:
        self._engine, self._waits, self._run, self._after, self._beat_s = engine, waits, run, after, beat_s
        self._hint = asyncio.Event()
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        super().__init__(self._frames(), headers=headers, media_type=EVENTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._waits.one(), self._engine.run_hint(self._run.no) as self._hint:
            await super().__call__(scope, receive, send)

    async def _frames(self) -> AsyncIterator[bytes]:
        yield b": following\n\n"
        try:
            async for one in self._told():
                yield one
        except StepwellError:
            return  # without `end`, so the client comes again, and is told the reason with a status

    async def _told(self) -> AsyncIterator[bytes]:
        """What the run says, and at last the run; a comment where nothing happens for long."""
        clock, poll_s = asyncio.get_running_loop().time, self._engine.settings.poll_ms / 1_000
        beat_at = clock() + self._beat_s
        while not self._waits.closing.is_set():
            self._hint.clear()
            run, chunks = await self._engine.read(self._look)
            for chunk in chunks:
                yield frame("output", output_view(chunk), chunk.n)
                self._after, beat_at = chunk.n, clock() + self._beat_s
            if chunks:
                continue
            if run is None:
                return
            if run.terminal:
                yield frame("end", {"run": (await full_view(self._engine, run.id, output=False))[1]})
                return
            await self._waits.heard(self._hint, min(poll_s, beat_at - clock()))
            if clock() >= beat_at:
                yield b": beat\n\n"
                beat_at = clock() + self._beat_s

    def _look(self, reader: Reader) -> tuple[Run | None, list[Output]]:
        run = reader.run_by_no(self._run.no)
        return run, [] if run is None else reader.output(run.no, after=self._after, limit=AT_ONCE)


def frame(event: str, data: Any, number: int | None = None) -> bytes:
    """One event of a stream; JSON has no line ends of its own."""
    mark = b"" if number is None else b"id: %d\n" % number
    return mark + b"event: " + event.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"

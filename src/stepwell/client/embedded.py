"""The same calls on an engine in this process: the local mode (source: spec codex-flows 6.1; fault 33)."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stepwell.client.calls import Wait, event_bytes, not_ended, step_names, wait_seconds
from stepwell.client.options import seconds
from stepwell.client.reading import chunk_of, dispatched_of, event_of, run_of
from stepwell.client.views import DispatchResult, EventView, OutputChunk, OutputPage, Page, RunView
from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend, iso_ms
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.options import FlowOptions
from stepwell.flows.views import accepted_view, event_id_of, full_run_view, output_view, run_view, stored_event_view
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unavailable, Unknown
from stepwell.model.rows import Run
from stepwell.model.settings import Settings, settings_from
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.local import Local, open_local
from stepwell.worker.why import why_of

T = TypeVar("T")
DEFAULT_LIMIT, MAX_LIMIT = 50, 500
#: What a run by itself shows of its journal and output, from the beginning; chunks that are read at once.
SHOWN, AT_ONCE = 1_000, 16


@asynccontextmanager
async def open_flow_client(
    cwd: Path | str,
    *,
    db: str = "memory:",
    slots: int = 4,
    roots: Sequence[Path] | None = None,
    options: FlowOptions | None = None,
    settings: Settings | None = None,
    drain_s: float = 30.0,
) -> AsyncIterator["EmbeddedFlowClient"]:
    """An engine, the flows of a folder, and a worker for them, as a flow client.

    `db`: `memory:` is gone at the end; a file, `sqlite:///FILE`, `postgresql://…` is kept, and shared.
    `slots`: steps at once; 0 to leave them to the others. `settings`: the `STEPWELL_` variables unless they are
    given. At the end, steps have `drain_s` seconds to finish.
    """
    settings = settings_from(os.environ) if settings is None else settings
    async with open_local(
        _url(db), Path(cwd), settings=settings, options=options, slots=slots, roots=roots, drain_s=drain_s
    ) as local:
        client = EmbeddedFlowClient(local)
        try:
            yield client
        finally:
            client.close()


def _url(db: object) -> str:
    if not isinstance(db, str | Path) or not str(db):
        raise Invalid(
            "db must be memory:, a file, sqlite:///FILE or postgresql://USER@HOST/DATABASE",
            hint="For example .stepwell/stepwell.sqlite.",
        )
    text = str(db)
    return text if text == "memory:" or "://" in text else f"sqlite:///{Path(text).absolute()}"


class EmbeddedFlowClient:
    """`FlowClient` without a server; `open_flow_client` makes it."""

    def __init__(self, local: Local) -> None:
        self._local, self._open = local, True

    def close(self) -> None:
        """Later calls are refused."""
        self._open = False

    @property
    def _engine(self) -> Engine:
        self._check()
        return self._local.engine

    @property
    def _flows(self) -> FlowBackend:
        self._check()
        return self._local.flows

    def _check(self) -> None:
        if not self._open:
            raise Unavailable("the client is closed", hint="Make the call inside of its `async with` block.")

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
        """See `FlowClient.list_runs`."""
        _one_of("status", status, STATUSES)
        _one_of("result_status", result_status, RESULT_STATUSES)
        rows, before = _limit(limit), _before(cursor)

        def look(reader: Reader) -> Page[RunView]:
            event = None if event_id is None else reader.event("main", event_id)
            number = None if event_id is None else -1 if event is None else event.no
            where = RunFilter(
                status=status, result_status=result_status, name=name, attention=bool(needs_attention), event_no=number
            )
            page = reader.list_runs(where, limit=rows, before=before)
            return Page(tuple(_seen(reader, run) for run in page.rows), _cursor(page.cursor))

        return await self._engine.read(look)

    async def get_run(self, run_id: str) -> RunView:
        """See `FlowClient.get_run`."""
        engine = self._engine
        return await engine.read(lambda reader: _full(reader, _known(reader, run_id), engine))

    async def list_events(
        self, *, type: str | None = None, limit: int | None = None, cursor: str | None = None  # noqa: A002 - its name
    ) -> Page[EventView]:  # fmt: skip
        """See `FlowClient.list_events`."""
        rows, before = _limit(limit), _before(cursor)

        def look(reader: Reader) -> Page[EventView]:
            page = reader.list_events("main", of_type=type, limit=rows, before=before)
            return Page(tuple(event_of(stored_event_view(event)) for event in page.rows), _cursor(page.cursor))

        return await self._engine.read(look)

    async def get_event(self, event_id: str) -> EventView:
        """See `FlowClient.get_event`."""

        def look(reader: Reader) -> EventView:
            event = reader.event("main", event_id)
            if event is None:
                raise Unknown(f"event not found: {event_id}", event_id=event_id)
            page = reader.list_runs(RunFilter(event_no=event.no), limit=MAX_LIMIT)
            return event_of(stored_event_view(event), [run_view(run, event_id) for run in page.rows])

        return await self._engine.read(look)

    async def output(self, run_id: str, after: int = 0, *, limit: int | None = None) -> OutputPage:
        """See `FlowClient.output`."""
        rows = _limit(limit)

        def look(reader: Reader) -> OutputPage:
            run = _known(reader, run_id)
            chunks = tuple(chunk_of(output_view(one)) for one in reader.output(run.no, after=after, limit=rows))
            last = chunks[-1].n if chunks else after
            ended = run.terminal and not reader.output(run.no, after=last, limit=1)
            return OutputPage(run_id=run.id, chunks=chunks, next=last, ended=ended)

        return await self._engine.read(look)

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def dispatch(self, event: Mapping[str, Any] | FlowEvent, *, wait: Wait = False) -> DispatchResult:
        """See `FlowClient.dispatch`; the worker of this process, or another one on the same file, runs its steps."""
        engine, wait_s = self._engine, wait_seconds(wait)
        limit = engine.settings.payload_bytes
        body = parse_event(event_bytes(event), now_iso=iso_ms(engine.clock_ms()), max_bytes=limit)
        return await self._told(await self._flows.dispatch(body, by="client"), wait_s)

    async def replay(self, event_id: str, *, steps: Sequence[str] = (), wait: Wait = False) -> DispatchResult:
        """See `FlowClient.replay`."""
        flows, wait_s, chosen = self._flows, wait_seconds(wait), step_names(steps)
        return await self._told(await flows.replay(event_id, steps=chosen, by="client"), wait_s)

    async def cancel(self, run_id: str, *, reason: str = "", terminate: bool = False) -> RunView:
        """See `FlowClient.cancel`."""
        kind = c.Terminate if terminate else c.Cancel
        return await self._after(run_id, self._engine.submit(kind(run_id, by="client", reason=reason)))

    async def retry(self, run_id: str) -> RunView:
        """See `FlowClient.retry`."""
        return await self._after(run_id, self._flows.retry(run_id, by="client"))

    async def _after(self, run_id: str, change: Awaitable[c.RunState]) -> RunView:
        await change
        return await self._engine.read(lambda reader: _seen(reader, _known(reader, run_id)))

    async def _told(self, accepted: c.Accepted, wait_s: float) -> DispatchResult:
        result = dispatched_of(accepted_view(accepted))
        if not wait_s:
            return result
        engine = self._engine

        def look(reader: Reader) -> tuple[RunView, ...]:
            return tuple(_full(reader, _known(reader, one), engine) for one in result.run_ids)

        try:
            async with asyncio.timeout(wait_s):
                for run_id in result.run_ids:
                    await self._ended(run_id)
        except TimeoutError:
            pass  # they are told as they are
        runs = await engine.read(look)
        return msgspec.structs.replace(result, runs=runs, ended=all(run.ended for run in runs))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def wait(self, run_id: str, timeout_s: float = 300.0) -> RunView:
        """See `FlowClient.wait`."""
        try:
            async with asyncio.timeout(seconds("timeout_s", timeout_s)):
                await self._ended(run_id)
        except TimeoutError:
            run = await self.get_run(run_id)
            if run.ended:
                return run
            raise not_ended(run, timeout_s) from None
        return await self.get_run(run_id)

    async def _ended(self, run_id: str) -> None:
        run = await self._engine.read(lambda reader: _known(reader, run_id))
        await self._engine.wait_end(run.no)

    async def watch(self, run_id: str, after: int = 0) -> AsyncIterator[OutputChunk | RunView]:
        """See `FlowClient.watch`."""
        number = (await self._engine.read(lambda reader: _known(reader, run_id))).no

        def look(reader: Reader) -> tuple[bool, list[OutputChunk]]:
            run = _known(reader, run_id)
            chunks = reader.output(run.no, after=after, limit=AT_ONCE)
            return run.terminal, [chunk_of(output_view(one)) for one in chunks]

        with self._engine.run_hint(number) as hint:
            while True:
                hint.clear()
                over, chunks = await self._engine.read(look)
                for chunk in chunks:
                    after = chunk.n
                    yield chunk
                if over and not chunks:
                    yield msgspec.structs.replace(await self.get_run(run_id), output=())  # it has been told
                    return
                if not chunks:
                    await _heard(hint, self._engine.settings.poll_ms / 1_000)


async def _heard(hint: asyncio.Event, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await hint.wait()
    except TimeoutError:
        pass  # a hint may be lost: look all the same


def _known(reader: Reader, run_id: str) -> Run:
    run = reader.run("main", run_id)
    if run is None:
        raise Unknown(f"run not found: {run_id}", run_id=run_id)
    return run


def _seen(reader: Reader, run: Run) -> RunView:
    return run_of(run_view(run, event_id_of(reader, run)))


def _full(reader: Reader, run: Run, engine: Engine) -> RunView:
    entries, output = reader.entries(run.no, limit=SHOWN), reader.output(run.no, limit=SHOWN)
    return run_of(full_run_view(run, event_id_of(reader, run), why_of(reader, run, engine), entries, output))


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise Invalid(f"{name} must be one of {', '.join(allowed)}, not {value!r:.80}", hint="Leave it out for all.")


def _limit(limit: object) -> int:
    if limit is None:
        return DEFAULT_LIMIT
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise Invalid(f"limit must be a whole number, not {limit!r:.80}", hint="Leave it out for 50.", field="limit")
    return min(limit or DEFAULT_LIMIT, MAX_LIMIT)


def _before(cursor: object) -> int | None:
    if cursor is None:
        return None
    if not isinstance(cursor, str) or not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 18:
        raise Invalid(f"this is no cursor: {cursor!r:.80}", hint="Give the cursor of the page before.", field="cursor")
    return int(cursor)


def _cursor(cursor: int | None) -> str | None:
    return None if cursor is None else str(cursor)

"""The verbs of the seed's backend (source: spec codex-flows 4.8): the views of the HTTP server, printed."""

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from stepwell.cli.chain import to_the_end
from stepwell.cli.common import Place, print_json, read_file, run_async
from stepwell.cli.given import flow_options, server_options
from stepwell.flows.backend import iso_ms
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.options import FlowOptions
from stepwell.flows.views import accepted_view, event_id_of, full_run_view, run_view, stored_event_view
from stepwell.model.commands import Accepted
from stepwell.model.errors import Invalid, Unknown
from stepwell.model.rows import Run
from stepwell.model.words import STATUSES
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.alive import any_worker
from stepwell.worker.local import Local
from stepwell.worker.why import why_of

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
#: How long a worker of somebody else may leave a run in the queue before we run it here.
PATIENCE_S = 3.0
LOOK_S = 0.05
SHOWN = 1_000


class Asked(Struct, frozen=True):
    """A verb's place, the words after it, and the options by name (None or False where not given)."""

    place: Place
    words: tuple[str, ...]
    options: dict[str, Any]

    def need(self, option: str, message: str) -> str:
        """The word after the verb, or else an option."""
        value = self.words[0] if self.words else self.options[option]
        if not value:
            raise Invalid(message, hint="See the command `help`.")
        return str(value)

    def flow_options(self) -> FlowOptions:
        """How steps are run."""
        return flow_options(
            os.environ,
            executor=self.options["executor"],
            bun=self.options["bun"],
            workspace_url=self.options["workspace_backend_url"],
        )


def serve(asked: Asked) -> None:
    """The server, with a worker in it."""
    from stepwell.cli.serve import run_server

    options = asked.options
    run_server(
        asked.place,
        (options["host"], options["port"]),
        options["slots"],
        30.0,
        options=asked.flow_options(),
        guards=server_options(os.environ, secret=options["secret"], events_dir=asked.place.data / "events"),
    )


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def list_events(asked: Asked) -> None:
    """{events}."""
    limit, of_type, before = _limit(asked), asked.options["type"], asked.options["cursor"]

    def query(reader: Reader) -> dict[str, Any]:
        page = reader.list_events("main", of_type=of_type, limit=limit, before=before)
        return _paged("events", [stored_event_view(event) for event in page.rows], page.cursor)

    _show(asked, query)


def show_event(asked: Asked) -> None:
    """{event, runs}."""
    event_id = asked.need("event_id", "show-event requires <event-id>")

    def query(reader: Reader) -> dict[str, Any]:
        event = reader.event("main", event_id)
        if event is None:
            raise _unknown("event", event_id)
        runs = reader.list_runs(RunFilter(event_no=event.no), limit=MAX_LIMIT).rows
        return {"event": stored_event_view(event), "runs": [run_view(run, event.id) for run in runs]}

    _show(asked, query)


def list_runs(asked: Asked) -> None:
    """{runs}."""
    limit, event_id = _limit(asked), asked.options["event_id"]
    status, before = asked.options["status"], asked.options["cursor"]
    if status is not None and status not in STATUSES:
        raise Invalid("run status must be queued, running, completed, or failed", hint=f"Or: {', '.join(STATUSES)}.")

    def query(reader: Reader) -> dict[str, Any]:
        event = None if event_id is None else reader.event("main", event_id)
        number = None if event_id is None else -1 if event is None else event.no
        page = reader.list_runs(RunFilter(event_no=number, status=status), limit=limit, before=before)
        return _paged("runs", [run_view(run, event_id_of(reader, run)) for run in page.rows], page.cursor)

    _show(asked, query)


def show_run(asked: Asked) -> None:
    """{run}."""
    run_id = asked.need("run_id", "show-run requires <run-id>")

    async def work() -> dict[str, Any]:
        async with asked.place.open(create=True) as local:

            def query(reader: Reader) -> dict[str, Any]:
                run = reader.run("main", run_id)
                if run is None:
                    raise _unknown("run", run_id)
                entries, output = reader.entries(run.no, limit=SHOWN), reader.output(run.no, limit=SHOWN)
                why = why_of(reader, run, local.engine)
                return {"run": full_run_view(run, event_id_of(reader, run), why, entries, output)}

            return await local.engine.read(query)

    print_json(run_async(work()))


def _show(asked: Asked, query: Any) -> None:
    async def work() -> Any:
        async with asked.place.open(create=True) as local:  # the seed makes its database as it is looked at
            return await local.engine.read(query)

    print_json(run_async(work()))


def _paged(name: str, rows: list[Any], cursor: int | None) -> dict[str, Any]:
    return {name: rows} | ({} if cursor is None else {"cursor": str(cursor)})


def _limit(asked: Asked) -> int:
    """1 to 500; 0 and nothing are 50."""
    text = asked.options["limit"]
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Invalid(f"limit must be a whole number, not {text!r:.80}", hint="Leave --limit out for 50.")
    return min(int(text) or DEFAULT_LIMIT, MAX_LIMIT)


def _unknown(what: str, name: str) -> Unknown:
    return Unknown(f"Unknown {what}: {name}", hint=f"See the command list-{what}s.")


# ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def dispatch(asked: Asked) -> None:
    """{status, eventId, runIds, matched}; with --wait also {ended, runs}. Fault 7: without it, workers do the work."""
    if not asked.options["event"]:
        raise Invalid("dispatch requires --event <path>", hint="Name a JSON file, or - for stdin.")
    body = read_file(asked.options["event"])

    async def work(local: Local) -> Accepted:
        return await local.flows.dispatch(event_in(body, local), by="dispatch")

    _start(asked, work)


def replay(asked: Asked) -> None:
    """The same for a stored event."""
    event_id = asked.need("event_id", "replay-event requires <event-id>")

    async def work(local: Local) -> Accepted:
        if await local.engine.read(lambda reader: reader.event("main", event_id)) is None:
            raise _unknown("event", event_id)
        return await local.flows.replay(event_id, by="replay-event")

    _start(asked, work)


def _start(asked: Asked, work: Any) -> None:
    async def start() -> dict[str, Any]:
        async with asked.place.open(create=True) as local:
            accepted: Accepted = await work(local)
        if not asked.options["wait"]:
            return accepted_view(accepted)
        runs = await _ended(asked, accepted.run_ids)
        return accepted_view(accepted) | {"ended": True, "runs": [run_view(run, accepted.event_id) for run in runs]}

    print_json(run_async(start()))


async def _ended(asked: Asked, run_ids: Sequence[str]) -> list[Run]:
    """Waits for runs. Where no worker lives, or none takes them, they are run here: nobody waits for ever.

    Whether one lives cannot be known on PostgreSQL, so there they are left to it for a while.
    """
    own = any_worker(asked.place.path) is False
    options = asked.flow_options()
    while True:
        slots = max(1, asked.options["slots"]) if own else 0
        async with asked.place.open(slots=slots, drain_s=0, options=options) as local:
            if own:  # what the results send is run here as well: nobody else would
                await all_ended(local, run_ids)
            runs = await _follow(local, run_ids, patience_s=PATIENCE_S)
            if runs is not None:
                return runs
        own = True


async def all_ended(local: Local, run_ids: Sequence[str]) -> list[Run]:
    """The runs, and those that their results lead to, run here to their end. `Invalid` for a workflow, which cannot."""

    async def ended(some: Sequence[str]) -> list[Run]:
        for run in await local.engine.read(partial(_runs, run_ids=some)):
            if run.kind == "workflow" and not run.terminal:
                hint = "Use `stepwell flow fire`, and a worker that has the app."
                raise Invalid(f"{run.name} is a workflow of an app: it cannot be run here", hint=hint)
        return await _follow(local, some, patience_s=float("inf")) or []

    return await to_the_end(local.engine, run_ids, ended)


async def _follow(local: Local, run_ids: Sequence[str], *, patience_s: float) -> list[Run] | None:
    """The runs when all have ended; None when one of them has been in the queue for too long."""
    queued_since: float | None = None
    while True:
        runs = await local.engine.read(partial(_runs, run_ids=run_ids))
        if all(run.terminal for run in runs):
            return runs
        if any(run.hold is not None for run in runs):
            held = next(run for run in runs if run.hold is not None)
            hint = f"`stepwell runs show {held.id}` says why; `stepwell runs retry {held.id}` lets it go on."
            raise Invalid(f"run {held.id} is held ({held.hold}) and will not end of itself", hint=hint)
        queued = any(run.status == "queued" for run in runs)
        queued_since = (queued_since or time.monotonic()) if queued else None
        if queued_since is not None and time.monotonic() - queued_since > patience_s:
            return None
        await asyncio.sleep(LOOK_S)


def _runs(reader: Reader, *, run_ids: Sequence[str]) -> list[Run]:
    found = [reader.run("main", run_id) for run_id in run_ids]
    return [run for run in found if run is not None]


def event_in(body: bytes, local: Local) -> FlowEvent:
    """The event that a file holds. Raises the error that says what is wrong with it."""
    return parse_event(body, now_iso=iso_ms(local.engine.clock_ms()), max_bytes=local.engine.settings.payload_bytes)

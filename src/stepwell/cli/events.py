"""`stepwell events`."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import msgspec

from stepwell.cli.common import (
    Place,
    clean,
    cursor_option,
    json_option,
    limit_option,
    need_event,
    need_run,
    print_json,
    print_notes,
    print_table,
    read_file,
    run_async,
    seconds,
    status_text,
    tell_cursor,
    with_place,
)
from stepwell.cli.completion import complete_events, complete_flow_steps, complete_flows, complete_types
from stepwell.cli.follow import follow, tellers
from stepwell.engine.engine import Engine
from stepwell.flows.backend import iso_ms
from stepwell.flows.events import parse_event
from stepwell.flows.views import accepted_view, run_view, stored_event_view
from stepwell.model.commands import Accepted
from stepwell.model.errors import Timeout
from stepwell.model.rows import Event, Run
from stepwell.store.port import Page, Reader, RunFilter
from stepwell.worker.why import Note, notes_of, why_of

#: How far a chain of events that sent each other is told.
LINKS = 100
wait_option = click.option("--wait", is_flag=True, help="Wait until its runs have ended, wherever they run.")
timeout_option = click.option(
    "--timeout", default=300.0, callback=seconds, show_default=True, help="Seconds to wait at the most."
)
event_argument = click.argument("event_id", shell_complete=complete_events)


@click.group()
def events() -> None:
    """List, show, dispatch and replay events."""


@events.command("list")
@click.option("--type", "of_type", shell_complete=complete_types, help="Only events of this type.")
@limit_option
@cursor_option
@json_option
@with_place
def list_events(place: Place, of_type: str | None, limit: int, cursor: int | None, as_json: bool) -> None:
    """List events, newest first."""

    def query(reader: Reader) -> Page:
        return reader.list_events("main", of_type=of_type, limit=limit, before=cursor)

    async def work() -> Page:
        async with place.open() as local:
            return await local.engine.read(query)

    page = run_async(work())
    if as_json:
        print_json({"events": [stored_event_view(event) for event in page.rows]} | tell_cursor(page.cursor))
    else:
        table = [(event.id, event.type, iso_ms(event.created_at), f"{event.matched}") for event in page.rows]
        print_table(("EVENT", "TYPE", "ACCEPTED", "RUNS"), table, empty="no events", cursor=page.cursor)


@events.command()
@event_argument
@json_option
@with_place
def show(place: Place, event_id: str, as_json: bool) -> None:
    """Show an event, its runs, what sent it, and why other steps did not match."""

    def query(reader: Reader, engine: Engine) -> tuple[Event, list[Run], list[dict[str, Any]], list[Note]]:
        event = need_event(reader, event_id)
        runs = reader.list_runs(RunFilter(event_no=event.no), limit=500).rows
        return event, runs, _chain(reader, event), [] if as_json else notes_of(reader, runs, engine)

    async def work() -> tuple[Event, list[Run], list[dict[str, Any]], list[Note]]:
        async with place.open() as local:
            return await local.engine.read(partial(query, engine=local.engine))

    event, runs, chain, notes = run_async(work())
    if as_json:
        shown = {"event": stored_event_view(event), "runs": [run_view(run, event.id) for run in runs]}
        print_json(shown | ({"chain": chain} if chain else {}))
    else:
        _print_event(stored_event_view(event), runs, chain)
        print_notes(notes)


def _chain(reader: Reader, event: Event) -> list[dict[str, Any]]:
    """What sent an event, back to the one that came from outside: [{runId, step?, eventId?}], the nearest first."""
    chain: list[dict[str, Any]] = []
    cause: str | None = event.cause
    while cause is not None and len(chain) < LINKS:
        run = reader.run(event.scope, cause)
        sender = None if run is None or run.event_no is None else reader.event_by_no(run.event_no)
        link = {"runId": cause, "step": run and run.name, "eventId": sender and sender.id}
        chain.append({key: value for key, value in link.items() if value})
        cause = None if sender is None else sender.cause
    return chain


def _print_event(view: dict[str, Any], runs: list[Run], chain: list[dict[str, Any]]) -> None:
    click.secho(clean(f"{view['id']}  {view['type']}"), bold=True)
    for label, key in (("source", "source"), ("occurred", "occurredAt"), ("received", "receivedAt")):
        if key in view:
            click.echo(f"  {label}: {clean(str(view[key]))}")
    replays = f", replayed {view['replays']} times" if view["replays"] else ""
    click.echo(f"  accepted: {view['createdAt']}, {view['matched']} steps matched{replays}")
    for link in chain:
        of = f" for event {link['eventId']}" if "eventId" in link else ""
        click.echo(clean(f"  sent by: run {link['runId']} of {link.get('step', 'a step that is gone')}{of}"))
    click.echo(f"  payload: {clean(msgspec.json.encode(view['payload']).decode())}")
    for miss in view.get("misses", ()):
        click.echo(clean(f"  no match: {miss['flow']}/{miss['step']}: {miss['reason']}"))
    print_table(("RUN", "STEP", "STATUS"), [(run.id, run.name, status_text(run)) for run in runs], empty="no runs")


@events.command()
@click.option("--event", "event_file", required=True, help="JSON file of the event; - for stdin.")
@wait_option
@timeout_option
@json_option
@with_place
def dispatch(place: Place, event_file: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Accept an event. A worker, for example of `stepwell serve`, runs the steps."""
    body = read_file(event_file)

    async def work() -> tuple[Accepted, list[Run]]:
        async with place.open(create=True) as local:
            now_iso = iso_ms(local.engine.clock_ms())
            event = parse_event(body, now_iso=now_iso, new_id=lambda: local.engine.new_id("evt_"))
            accepted = await local.flows.dispatch(event, by="events dispatch")
            return accepted, await _ends(local.engine, accepted, wait, timeout, as_json)

    _told(*run_async(work()), wait=wait, as_json=as_json)


def _flow_names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not name or "/" in name:
            raise click.BadParameter(f"{name!r} is not the name of a flow; --step takes FLOW/STEP.", ctx, param)
    return value


@events.command()
@event_argument
@click.option(
    "--flow", "flows", multiple=True, callback=_flow_names, shell_complete=complete_flows,
    help="Only steps of this flow; may be given again.",
)  # fmt: skip
@click.option(
    "--step", "steps", multiple=True, shell_complete=complete_flow_steps,
    help="Only this FLOW or FLOW/STEP; may be given again.",
)  # fmt: skip
@wait_option
@timeout_option
@json_option
@with_place
def replay(
    place: Place,
    event_id: str,
    flows: tuple[str, ...],
    steps: tuple[str, ...],
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Run a stored event again, on the flows as they are now."""

    async def work() -> tuple[Accepted, list[Run]]:
        async with place.open() as local:
            accepted = await local.flows.replay(event_id, steps=(*flows, *steps), by="events replay")
            return accepted, await _ends(local.engine, accepted, wait, timeout, as_json)

    _told(*run_async(work()), wait=wait, as_json=as_json)


async def _ends(engine: Engine, accepted: Accepted, wait: bool, timeout_s: float, as_json: bool) -> list[Run]:
    if not wait:
        return []
    try:
        async with asyncio.timeout(timeout_s):
            return await follow(engine, accepted.run_ids, tellers(quiet=as_json))
    except TimeoutError:
        first, why = await engine.read(partial(_first_open, run_ids=accepted.run_ids, engine=engine))
        message = f"the runs of event {accepted.event_id} have not ended within {timeout_s:g} s: {first}: {why}"
        raise Timeout(message, hint=f"They go on: `stepwell runs watch {' '.join(accepted.run_ids[:3])}`.") from None


def _first_open(reader: Reader, *, run_ids: Sequence[str], engine: Engine) -> tuple[str, str]:
    """The first of the runs that has not ended, and why."""
    found = [need_run(reader, run_id) for run_id in run_ids]
    run = next((one for one in found if not one.terminal), found[-1])
    return run.id, why_of(reader, run, engine)


def _told(accepted: Accepted, runs: list[Run], *, wait: bool, as_json: bool) -> None:
    if as_json:
        ended: dict[str, Any] = {"runs": [run_view(run, accepted.event_id) for run in runs]} if wait else {}
        print_json(accepted_view(accepted) | ended)
    else:
        click.echo(f"event {clean(accepted.event_id)}: {accepted.status}, {len(accepted.run_ids)} runs")
        for run_id in accepted.run_ids:
            click.echo(f"  {run_id}")
    if any(run.status != "completed" for run in runs):
        raise click.exceptions.Exit(1)

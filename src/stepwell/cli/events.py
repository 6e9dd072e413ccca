"""`stepwell events`."""

import asyncio
from typing import Any

import click

from stepwell.cli.common import (
    Place,
    clean,
    json_option,
    limit_option,
    print_json,
    print_table,
    read_file,
    run_async,
    seconds,
    status_text,
    with_place,
)
from stepwell.cli.follow import follow
from stepwell.engine.engine import Engine
from stepwell.flows.backend import iso_ms
from stepwell.flows.events import parse_event
from stepwell.flows.views import accepted_view, run_view, stored_event_view
from stepwell.model.commands import Accepted
from stepwell.model.errors import Timeout, Unknown
from stepwell.model.rows import Event, Run
from stepwell.store.port import Reader, RunFilter

wait_option = click.option("--wait", is_flag=True, help="Wait until its runs have ended, wherever they run.")
timeout_option = click.option(
    "--timeout", default=300.0, callback=seconds, show_default=True, help="Seconds to wait at the most."
)


@click.group()
def events() -> None:
    """List, show, dispatch and replay events."""


@events.command("list")
@click.option("--type", "of_type", help="Only events of this type.")
@limit_option
@json_option
@with_place
def list_events(place: Place, of_type: str | None, limit: int, as_json: bool) -> None:
    """List events, newest first."""

    async def work() -> list[Event]:
        async with place.open() as local:
            page = await local.engine.read(lambda reader: reader.list_events("main", of_type=of_type, limit=limit))
            return page.rows

    rows = run_async(work())
    if as_json:
        print_json({"events": [stored_event_view(event) for event in rows]})
    else:
        table = [(event.id, event.type, iso_ms(event.created_at), f"{event.matched}") for event in rows]
        print_table(("EVENT", "TYPE", "ACCEPTED", "RUNS"), table, empty="no events")


@events.command()
@click.argument("event_id")
@json_option
@with_place
def show(place: Place, event_id: str, as_json: bool) -> None:
    """Show an event, its runs, and why other steps did not match."""

    def query(reader: Reader) -> tuple[Event, list[Run]]:
        event = reader.event("main", event_id)
        if event is None:
            raise Unknown(f"no event {event_id!r}", hint="See `stepwell events list`.", event_id=event_id)
        return event, reader.list_runs(RunFilter(event_no=event.no), limit=500).rows

    async def work() -> tuple[Event, list[Run]]:
        async with place.open() as local:
            return await local.engine.read(query)

    event, runs = run_async(work())
    view = stored_event_view(event)
    if as_json:
        print_json({"event": view, "runs": [run_view(run, event.id) for run in runs]})
        return
    print_json(view)
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


@events.command()
@click.argument("event_id")
@click.option("--step", "steps", multiple=True, help="Only this FLOW or FLOW/STEP; may be given again.")
@wait_option
@timeout_option
@json_option
@with_place
def replay(place: Place, event_id: str, steps: tuple[str, ...], wait: bool, timeout: float, as_json: bool) -> None:
    """Run a stored event again, on the flows as they are now."""

    async def work() -> tuple[Accepted, list[Run]]:
        async with place.open() as local:
            accepted = await local.flows.replay(event_id, steps=steps, by="events replay")
            return accepted, await _ends(local.engine, accepted, wait, timeout, as_json)

    _told(*run_async(work()), wait=wait, as_json=as_json)


async def _ends(engine: Engine, accepted: Accepted, wait: bool, timeout_s: float, as_json: bool) -> list[Run]:
    if not wait:
        return []
    try:
        async with asyncio.timeout(timeout_s):
            return await follow(engine, accepted.run_ids, quiet=as_json)
    except TimeoutError:
        hint = (
            "Is a worker running? Start one with `stepwell serve`, or see `stepwell runs show RUN` for what it waits."
        )
        raise Timeout(f"the runs have not ended within {timeout_s:g} s", hint=hint) from None


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

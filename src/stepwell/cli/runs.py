"""`stepwell runs`."""

from typing import Any

import click
import msgspec

from stepwell.cli.common import (
    Place,
    clean,
    color_of,
    json_option,
    limit_option,
    need_run,
    print_json,
    print_table,
    run_async,
    status_text,
    with_place,
)
from stepwell.cli.follow import follow
from stepwell.flows.backend import iso_ms
from stepwell.flows.views import event_id_of, full_run_view, run_view
from stepwell.model import commands as c
from stepwell.model.errors import Unknown
from stepwell.model.rows import Run
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Reader, RunFilter


@click.group()
def runs() -> None:
    """List, show, watch, cancel and retry runs."""


@runs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs in this status.")
@click.option("--result-status", type=click.Choice(RESULT_STATUSES), help="Only runs whose step says this.")
@click.option("--event-id", help="Only runs of this event.")
@click.option("--name", help="Only runs of this FLOW/STEP or workflow.")
@click.option("--attention", is_flag=True, help="Only runs that ask for somebody.")
@limit_option
@json_option
@with_place
def list_runs(place: Place, event_id: str | None, limit: int, as_json: bool, **filters: Any) -> None:
    """List runs, newest first."""

    def query(reader: Reader) -> list[tuple[Run, str | None]]:
        event_no = None
        if event_id is not None:
            event = reader.event("main", event_id)
            if event is None:
                raise Unknown(f"no event {event_id!r}", hint="See `stepwell events list`.", event_id=event_id)
            event_no = event.no
        rows = reader.list_runs(RunFilter(event_no=event_no, **filters), limit=limit).rows
        return [(run, event_id_of(reader, run)) for run in rows]

    async def work() -> list[tuple[Run, str | None]]:
        async with place.open() as local:
            return await local.engine.read(query)

    found = run_async(work())
    if as_json:
        print_json({"runs": [run_view(run, of) for run, of in found]})
    else:
        rows = [(run.id, run.name, status_text(run), iso_ms(run.created_at), of or "") for run, of in found]
        print_table(("RUN", "NAME", "STATUS", "CREATED", "EVENT"), rows, empty="no runs")


@runs.command()
@click.argument("run_id")
@json_option
@with_place
def show(place: Place, run_id: str, as_json: bool) -> None:
    """Show a run: why it does not move, its attempts, its journal and its output."""

    async def work() -> dict[str, Any]:
        async with place.open() as local:
            now = local.engine.clock_ms()

            def query(reader: Reader) -> dict[str, Any]:
                run = need_run(reader, run_id)
                entries, output = reader.entries(run.no), reader.output(run.no)
                return full_run_view(run, event_id_of(reader, run), reader.tasks_of(run.no), entries, output, now)

            return await local.engine.read(query)

    view = run_async(work())
    if as_json:
        print_json({"run": view})
    else:
        _print_run(view)


def _print_run(view: dict[str, Any]) -> None:
    status = view.get("resultStatus") or view["status"]
    click.echo(f"{view['id']}  {view['name']}  {click.style(view['status'], fg=color_of(status))}")
    for label, key in (("result says", "resultStatus"), ("event", "eventId"), ("why", "why"), ("held", "hold")):
        if view.get(key):
            click.echo(f"  {label}: {clean(str(view[key]))}")
    for key in ("error", "result"):
        if key in view:
            click.echo(f"  {key}: {clean(msgspec.json.encode(view[key]).decode())}")
    rows = [
        (str(one["seq"]), one["at"], one["kind"], one.get("key", ""), _short(one["data"])) for one in view["journal"]
    ]
    print_table(("SEQ", "AT", "ENTRY", "KEY", "DATA"), rows, empty="no journal")
    for chunk in view["output"]:
        for line in chunk["text"].splitlines():
            click.echo(f"  {chunk['attempt']}{'!' if chunk['kind'] == 'stderr' else '|'} {clean(line)}")


def _short(data: Any) -> str:
    text = msgspec.json.encode(data).decode()
    return text if len(text) <= 100 else text[:97] + "..."


@runs.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...")
@with_place
def watch(place: Place, run_ids: tuple[str, ...]) -> None:
    """Follow runs, with what they say, until they have ended."""

    async def work() -> list[Run]:
        async with place.open() as local:
            return await follow(local.engine, run_ids)

    if any(run.status != "completed" for run in run_async(work())):
        raise click.exceptions.Exit(1)


@runs.command()
@click.argument("run_id")
@click.option("--reason", default="", help="Kept with the run.")
@click.option("--now", is_flag=True, help="Do not ask: end it at once.")
@json_option
@with_place
def cancel(place: Place, run_id: str, reason: str, now: bool, as_json: bool) -> None:
    """Ask a run to end: its step gets TERM, a grace, and then KILL."""
    kind = c.Terminate if now else c.Cancel
    _change(place, kind(run_id, by="cli", reason=reason), as_json)


@runs.command()
@click.argument("run_id")
@json_option
@with_place
def retry(place: Place, run_id: str, as_json: bool) -> None:
    """Run an ended run again, as its next generation. A held run is released."""

    async def work() -> c.Command:
        async with place.open() as local:
            run = await local.engine.read(lambda reader: need_run(reader, run_id))
            return c.ReleaseRun(run_id, by="cli") if run.hold is not None else c.Restart(run_id, by="cli")

    _change(place, run_async(work()), as_json)


def _change(place: Place, command: c.Command, as_json: bool) -> None:
    async def work() -> c.RunState:
        async with place.open() as local:
            state: c.RunState = await local.engine.submit(command)
            return state

    state = run_async(work())
    if as_json:
        print_json({"runId": state.run_id, "status": state.status, "generation": state.generation})
    else:
        click.echo(f"{state.run_id}: {state.status}, generation {state.generation}")

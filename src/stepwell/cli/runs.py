"""`stepwell runs`."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import click
import msgspec

from stepwell.cli.common import (
    LAST,
    Place,
    clean,
    color_of,
    cursor_option,
    json_option,
    limit_option,
    need_event,
    need_run,
    print_json,
    print_notes,
    print_table,
    run_async,
    status_text,
    tags_of,
    tell_cursor,
    with_place,
)
from stepwell.cli.completion import complete_events, complete_names, complete_runs
from stepwell.cli.follow import JsonLines, Screen, follow, tellers
from stepwell.cli.journal import journal, result, state
from stepwell.engine.engine import Engine
from stepwell.flows.backend import iso_ms
from stepwell.flows.views import event_id_of, full_run_view, output_view, run_view
from stepwell.model import commands as c
from stepwell.model.rows import Output, Run
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Page, Reader, RunFilter
from stepwell.worker.local import Local
from stepwell.worker.why import Note, notes_of, why_of

#: Chunks of output in one page.
CHUNKS = 1_000
run_argument = click.argument("run_id", shell_complete=complete_runs)


@click.group()
def runs() -> None:
    """List, show, watch, cancel and retry runs."""


for command in (journal, result, state):
    runs.add_command(command)


@runs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs in this status.")
@click.option("--result-status", type=click.Choice(RESULT_STATUSES), help="Only runs whose step says this.")
@click.option("--event-id", shell_complete=complete_events, help="Only runs of this event.")
@click.option("--name", shell_complete=complete_names, help="Only runs of this FLOW/STEP or workflow.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=TEXT", help="Only runs with this tag; all of several.")
@click.option("--attention", is_flag=True, help="Only runs that ask for somebody.")
@limit_option
@cursor_option
@json_option
@with_place
def list_runs(
    place: Place,
    event_id: str | None,
    limit: int,
    cursor: int | None,
    as_json: bool,
    tags: tuple[str, ...],
    **filters: Any,
) -> None:
    """List runs, newest first. With --tag a page may be short, and go on."""
    wanted = tags_of(tags)

    def query(reader: Reader, engine: Engine) -> tuple[Page, list[str | None], list[Note]]:
        event_no = None if event_id is None else need_event(reader, event_id).no
        page = reader.list_runs(RunFilter(event_no=event_no, tags=wanted, **filters), limit=limit, before=cursor)
        notes = [] if as_json else notes_of(reader, page.rows, engine)
        return page, [event_id_of(reader, run) for run in page.rows], notes

    async def work() -> tuple[Page, list[str | None], list[Note]]:
        async with place.open() as local:
            return await local.engine.read(partial(query, engine=local.engine))

    page, events, notes = run_async(work())
    found = list(zip(page.rows, events, strict=True))
    if as_json:
        print_json({"runs": [run_view(run, of) for run, of in found]} | tell_cursor(page.cursor))
    else:
        rows = [(run.id, run.name, status_text(run), iso_ms(run.created_at), of or "") for run, of in found]
        print_table(("RUN", "NAME", "STATUS", "CREATED", "EVENT"), rows, empty="no runs", cursor=page.cursor)
        print_notes(notes)


@runs.command()
@run_argument
@json_option
@with_place
def show(place: Place, run_id: str, as_json: bool) -> None:
    """Show a run: why it does not move, its attempts, its journal and its output."""

    async def work() -> dict[str, Any]:
        async with place.open() as local:

            def query(reader: Reader) -> dict[str, Any]:
                run = need_run(reader, run_id)
                entries, output = reader.entries(run.no), reader.output(run.no)
                why = why_of(reader, run, local.engine)
                return full_run_view(run, event_id_of(reader, run), why, entries, output)

            return await local.engine.read(query)

    view = run_async(work())
    if as_json:
        print_json({"run": view})
    else:
        _print_run(view)


def _print_run(view: dict[str, Any]) -> None:
    status = view.get("resultStatus") or view["status"]
    click.secho(clean(view["why"]), bold=True)
    click.echo(f"{view['id']}  {clean(view['name'])}  {click.style(view['status'], fg=color_of(status))}")
    for label, key in (("result says", "resultStatus"), ("event", "eventId"), ("held", "hold")):
        if view.get(key):
            click.echo(f"  {label}: {clean(str(view[key]))}")
    for key in ("error", "failure", "result", "nextEventIds"):
        if key in view:
            text = view[key] if isinstance(view[key], str) else msgspec.json.encode(view[key]).decode()
            click.echo(f"  {key}: {clean(text)}")
    rows = [
        (str(one["seq"]), one["at"], one["kind"], one.get("key", ""), _short(one["data"])) for one in view["journal"]
    ]
    print_table(("SEQ", "AT", "ENTRY", "KEY", "DATA"), rows, empty="no journal")
    for chunk in view["output"]:
        for line in chunk["text"].splitlines():
            click.echo(f"  {chunk['attempt']}{'!' if chunk['kind'] == 'stderr' else '|'} {clean(line)}")
    if len(view["output"]) == CHUNKS:
        click.echo(f"  ... `stepwell runs output {view['id']} --after {view['output'][-1]['n']}` has the rest")


def _short(data: Any) -> str:
    text = msgspec.json.encode(data).decode()
    return text if len(text) <= 100 else text[:97] + "..."


@runs.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@json_option
@with_place
def watch(place: Place, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Follow runs, with what they say, until they have ended. As JSON: one object a line."""
    _follow(place, run_ids, as_json)


def _follow(place: Place, run_ids: tuple[str, ...], as_json: bool, after: int = 0) -> None:
    async def work() -> list[Run]:
        async with place.open() as local:
            return await follow(local.engine, run_ids, JsonLines if as_json else tellers(quiet=False), after=after)

    if any(run.status != "completed" for run in run_async(work())):
        raise click.exceptions.Exit(1)


@runs.command()
@run_argument
@click.option("--after", type=click.IntRange(0, LAST), default=0, help="Only chunks after this number.")
@click.option("--follow", "go_on", is_flag=True, help="Go on until the run has ended, as `runs watch` does.")
@json_option
@with_place
def output(place: Place, run_id: str, after: int, go_on: bool, as_json: bool) -> None:
    """Print what a run said: all of it; as JSON by pages of 1000 chunks, each of which says what comes after it."""
    if go_on:
        _follow(place, (run_id,), as_json, after)
        return

    async def work() -> None:
        async with place.open() as local:
            run, chunks = await local.engine.read(partial(_chunks, run_id=run_id, after=after))
            if as_json:
                more = {"next": chunks[-1].n} if len(chunks) == CHUNKS else {}
                views = [output_view(one) for one in chunks]
                print_json({"runId": run.id, "status": run.status, "output": views} | more)
                return
            screen = Screen(bare=True)
            while chunks:
                screen.take(run, chunks)
                run, chunks = await local.engine.read(partial(_chunks, run_id=run_id, after=chunks[-1].n))
            screen.rest(run)

    run_async(work())


def _chunks(reader: Reader, *, run_id: str, after: int) -> tuple[Run, list[Output]]:
    run = need_run(reader, run_id)
    return run, reader.output(run.no, after=after, limit=CHUNKS)


@runs.command()
@run_argument
@click.option("--reason", default="", help="Kept with the run.")
@click.option("--now", is_flag=True, help="Do not ask: end it at once.")
@json_option
@with_place
def cancel(place: Place, run_id: str, reason: str, now: bool, as_json: bool) -> None:
    """Ask a run to end: its step gets TERM, a grace, and then KILL."""
    kind = c.Terminate if now else c.Cancel
    _change(place, lambda local: local.engine.submit(kind(run_id, by="cli", reason=reason)), as_json)


@runs.command()
@run_argument
@json_option
@with_place
def retry(place: Place, run_id: str, as_json: bool) -> None:
    """Run an ended run again, as its next generation. A held run is released."""

    _change(place, lambda local: local.flows.retry(run_id, by="cli"), as_json)


def _change(place: Place, change: Callable[[Local], Awaitable[c.RunState]], as_json: bool) -> None:
    async def work() -> c.RunState:
        async with place.open() as local:
            return await change(local)

    state = run_async(work())
    if as_json:
        print_json({"runId": state.run_id, "status": state.status, "generation": state.generation})
    else:
        click.echo(f"{state.run_id}: {state.status}, generation {state.generation}")

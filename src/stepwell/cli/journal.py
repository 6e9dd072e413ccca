"""`stepwell runs journal`, `runs result` and `runs state`: what a run did, what came of it, what it says of itself."""

import asyncio
from functools import partial
from typing import TypeVar

import click
import msgspec

from stepwell.cli.common import (
    LAST,
    Place,
    clean,
    json_option,
    need_run,
    print_json,
    print_json_line,
    run_async,
    seconds,
    with_place,
)
from stepwell.cli.completion import complete_runs, complete_states
from stepwell.engine.engine import Engine
from stepwell.flows.backend import iso_ms
from stepwell.flows.views import entry_view, run_view
from stepwell.model.errors import Timeout, Unknown
from stepwell.model.rows import Entry, Run
from stepwell.store.port import Reader
from stepwell.worker.said import state_text
from stepwell.worker.why import why_of

T = TypeVar("T")
#: Entries that are read at once.
AT_ONCE = 500
run_argument = click.argument("run_id", metavar="RUN", shell_complete=complete_runs)


@click.command()
@run_argument
@click.option("--after", type=click.IntRange(0, LAST), default=0, help="Only entries after this number.")
@click.option("--key", help="Only entries of this step.")
@json_option
@with_place
def journal(place: Place, run_id: str, after: int, key: str | None, as_json: bool) -> None:
    """Print all that has happened to RUN, in full. As JSON: one entry a line."""

    async def work() -> None:
        async with place.open() as local:
            seen = after
            while entries := await local.engine.read(partial(_entries, run_id=run_id, after=seen)):
                seen = entries[-1].seq
                for entry in entries:
                    if key is None or entry.key == key:
                        _tell(entry, as_json)

    run_async(work())


def _entries(reader: Reader, *, run_id: str, after: int) -> list[Entry]:
    return reader.entries(need_run(reader, run_id).no, after=after, limit=AT_ONCE)


def _tell(entry: Entry, as_json: bool) -> None:
    if as_json:
        print_json_line(entry_view(entry))
        return
    head = f"{entry.seq:>5}  {iso_ms(entry.at)}  {entry.kind}"
    click.echo(click.style(head, bold=True) + (f"  {clean(entry.key)}" if entry.key else ""))
    for name, value in msgspec.json.decode(entry.data).items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        click.echo(f"       {name}: {clean(text)}")


@click.command()
@run_argument
@click.option("--timeout", default=300.0, callback=seconds, show_default=True, help="Seconds to wait at the most.")
@click.option("--no-wait", is_flag=True, help="Do not wait: a run that has not ended is an error.")
@json_option
@with_place
def result(place: Place, run_id: str, timeout: float, no_wait: bool, as_json: bool) -> None:
    """Wait for RUN and print what it returned, as JSON. Exits with 1 if it failed or was canceled."""

    async def work() -> Run:
        async with place.open() as local:
            return await _ended(local.engine, run_id, 0.001 if no_wait else timeout)

    run = run_async(work())
    view = run_view(run)
    if as_json:
        keys = ("id", "name", "status", "resultStatus", "result", "error", "failure")
        print_json({name: view[name] for name in keys if name in view})
    elif run.status == "completed":
        print_json(view.get("result"))
    else:
        click.echo(f"{run.id}: {run.status}{': ' if 'error' in view else ''}{clean(view.get('error', ''))}", err=True)
    if run.status != "completed":
        raise click.exceptions.Exit(1)


async def _ended(engine: Engine, run_id: str, limit_s: float) -> Run:
    """The run when it has ended, or the last one that continues it. Raises `Timeout` with why it has not."""
    run: Run | None = await engine.read(lambda reader: need_run(reader, run_id))
    try:
        async with asyncio.timeout(limit_s):
            while run is not None:
                run = await engine.wait_end(run.no)
                if run is not None and run.next_no is None:
                    return run
                run = run and await engine.read(partial(_next, number=run.next_no))
    except TimeoutError:
        why = await engine.read(lambda reader: why_of(reader, need_run(reader, run_id), engine))
        raise Timeout(f"run {run_id} has not ended: {why}", hint="Look again later.", run_id=run_id) from None
    raise Unknown(f"run {run_id} was deleted", run_id=run_id)


def _next(reader: Reader, *, number: int | None) -> Run | None:
    return None if number is None else reader.run_by_no(number)


@click.command()
@run_argument
@click.argument("name", shell_complete=complete_states)
@json_option
@with_place
def state(place: Place, run_id: str, name: str, as_json: bool) -> None:
    """Print what RUN last said about itself as NAME, by `ctx.set`."""

    def look(reader: Reader) -> str | None:
        return state_text(reader, need_run(reader, run_id), name)

    async def work() -> str | None:
        async with place.open() as local:
            return await local.engine.read(look)

    text = run_async(work())
    if text is None:
        raise Unknown(f"run {run_id} has not said {name!r}", hint="`stepwell runs journal RUN` has all that it did.")
    value = msgspec.json.decode(text)
    print_json({"runId": run_id, "name": name, "value": value} if as_json else value)

"""Following runs on the terminal: what they say while they say it, and how they end."""

import asyncio
from collections.abc import Sequence

import click

from stepwell.cli.common import clean, color_of, status_text
from stepwell.engine.engine import Engine
from stepwell.kernel.explain import explain
from stepwell.model.errors import Unknown
from stepwell.model.rows import Output, Run
from stepwell.store.port import Reader

EVERY_S = 0.1
QUIET_S = 5.0


async def follow(engine: Engine, run_ids: Sequence[str], *, quiet: bool = False) -> list[Run]:
    """Prints output and statuses of runs until all have ended; answers them in the order of the ids."""
    runs = await asyncio.gather(*(_follow(engine, run_id, quiet) for run_id in run_ids))
    return list(runs)


async def _follow(engine: Engine, run_id: str, quiet: bool) -> Run:
    seen, told, waited = 0, "", 0.0
    while True:
        run, output, why = await engine.read(lambda reader: _look(reader, run_id, seen, engine.clock_ms()))  # noqa: B023
        if not quiet:
            for chunk in output:
                print_output(run, chunk)
            if status_text(run) != told:
                told, waited = status_text(run), 0.0
                print_status(run, told)
            elif waited >= QUIET_S:
                waited = 0.0
                click.secho(f"{run.name}: {clean(why)}", dim=True)
        seen = output[-1].n if output else seen
        if run.terminal and not output:
            return run
        waited += EVERY_S
        await asyncio.sleep(EVERY_S)


def _look(reader: Reader, run_id: str, seen: int, now: int) -> tuple[Run, list[Output], str]:
    run = reader.run("main", run_id)
    if run is None:
        raise Unknown(f"no run {run_id!r}", hint="See `stepwell runs list`.", run_id=run_id)
    return run, reader.output(run.no, after=seen), explain(run, reader.tasks_of(run.no), now)


def print_output(run: Run, chunk: Output) -> None:
    """Each line with the name of the run that said it."""
    for line in chunk.text.splitlines():
        click.echo(f"{click.style(run.name, fg='cyan')} {'! ' if chunk.kind == 'stderr' else '| '}{clean(line)}")


def print_status(run: Run, text: str) -> None:
    """A change of status."""
    click.echo(f"{click.style(run.name, fg='cyan')} {click.style(text, fg=color_of(run.result_status or run.status))}")

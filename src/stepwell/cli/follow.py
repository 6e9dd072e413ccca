"""Following runs on the terminal: what they say while they say it, and how they end."""

import asyncio
from collections.abc import Sequence
from functools import partial

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
    screen, seen, waited = Screen(), 0, 0.0
    while True:
        run, output, why = await engine.read(partial(_look, run_id=run_id, seen=seen, now=engine.clock_ms()))
        seen = output[-1].n if output else seen
        if not quiet and (screen.show(run, output) or waited < QUIET_S):
            waited = 0.0 if output else waited
        elif not quiet:
            click.secho(f"{run.name}: {clean(why)}", dim=True)
            waited = 0.0
        if run.terminal and not output:
            return run
        waited += EVERY_S
        await asyncio.sleep(EVERY_S)


class Screen:
    """What was shown of one run: its status, and the lines that have not ended yet."""

    def __init__(self) -> None:
        self._status = ""
        self._partial: dict[str, str] = {}

    def show(self, run: Run, output: Sequence[Output]) -> bool:
        """Prints what is new, a status before what is said in it, the end after everything; answers if there was."""
        changed = status_text(run) != self._status
        if changed and not run.terminal:
            self._tell(run)
        for chunk in output:
            *lines, self._partial[chunk.kind] = (self._partial.get(chunk.kind, "") + chunk.text).split("\n")
            for line in lines:
                print_line(run, chunk.kind, line)
        if changed and run.terminal and not output:
            for kind, rest in self._partial.items():
                if rest:
                    print_line(run, kind, rest)
            self._tell(run)
        return changed or bool(output)

    def _tell(self, run: Run) -> None:
        self._status = status_text(run)
        color = color_of(run.result_status or run.status)
        click.echo(f"{click.style(run.name, fg='cyan')} {click.style(self._status, fg=color)}")


def _look(reader: Reader, *, run_id: str, seen: int, now: int) -> tuple[Run, list[Output], str]:
    run = reader.run("main", run_id)
    if run is None:
        raise Unknown(f"no run {run_id!r}", hint="See `stepwell runs list`.", run_id=run_id)
    return run, reader.output(run.no, after=seen), explain(run, reader.tasks_of(run.no), now)


def print_line(run: Run, kind: str, line: str) -> None:
    """A line that a run said, with its name; its result is shown as its status."""
    if not line.startswith("FLOW_RESULT "):
        click.echo(f"{click.style(run.name, fg='cyan')} {'!' if kind == 'stderr' else '|'} {clean(line)}")

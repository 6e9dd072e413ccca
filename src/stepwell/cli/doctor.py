"""`stepwell doctor`."""

import sys
from typing import Any

import click
import msgspec

from stepwell.cli.common import Place, clean, json_option, print_json, print_notes, run_async, with_place
from stepwell.engine.doctor import Checked, examine
from stepwell.kernel.laws import Offence
from stepwell.store.port import Reader
from stepwell.worker.why import Note, notes_of_open

LAWS = {
    1: "order: entries are dense and never edited",
    2: "fold: the row is the fold of the journal",
    3: "fence: one live lease a task, no write without it",
    4: "once: a recorded result is never replaced",
    5: "accepted means it will run",
    6: "nobody is stranded",
    9: "the end is the end",
    10: "bounds hold",
    12: "status tells the truth",
}


@click.command()
@json_option
@with_place
def doctor(place: Place, as_json: bool) -> None:
    """Check every law that the data can show, and name each offender. Exit code 1 if there is one.

    Also notes what keeps runs from moving though all laws hold, such as a database without a worker.
    """
    checked = Checked()

    def progress(now: Checked) -> None:
        if sys.stderr.isatty() and not as_json:
            click.echo(f"\r{now.runs:,} runs, {now.entries:,} entries, {now.events:,} events", nl=False, err=True)

    async def work() -> tuple[list[Offence], list[Note]]:
        async with place.open() as local:
            settings = local.engine.settings

            def query(reader: Reader) -> list[Offence]:
                return list(examine(reader, settings, checked, progress))

            notes = await local.engine.read(lambda reader: notes_of_open(reader, local.engine))
            return await local.engine.read(query, snapshot=False), notes

    offences, notes = run_async(work())
    if sys.stderr.isatty() and not as_json:
        click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        found = {"offences": msgspec.to_builtins(offences), "notes": msgspec.to_builtins(notes)}
        print_json({"ok": not offences, "checked": checked, **found})
    else:
        _print(checked, offences)
        print_notes(notes)
    if offences:
        raise click.exceptions.Exit(1)


def _print(checked: Checked, offences: list[Offence]) -> None:
    click.echo(f"checked {checked.runs:,} runs, {checked.entries:,} entries, {checked.events:,} events")
    by_law: dict[int, Any] = {law: [one for one in offences if one.law == law] for law in LAWS}
    for law, text in LAWS.items():
        found = by_law[law]
        mark = click.style("broken", fg="red") if found else click.style("holds", fg="green")
        click.echo(f"  law {law:>2}  {mark}  {text}")
        for one in found:
            click.echo(f"          {clean(one.who)}: {clean(one.what)}")

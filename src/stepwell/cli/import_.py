"""`stepwell import`."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from stepwell.cli.common import Place, clean, json_option, print_json, run_async, with_place
from stepwell.engine.clock import wall_ms
from stepwell.flows.original import Counts, open_original
from stepwell.flows.takeover import NAME, Summary, adopt_in, check_retention, rehearse_in, take_over


@click.group("import")
def import_() -> None:
    """Take over the history of another system."""


@import_.command(NAME)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would come of it.")
@click.option("--drop-old", is_flag=True, help="Leave out what retention would delete at once.")
@json_option
@with_place
def codex_flow(place: Place, folder: Path, dry_run: bool, drop_old: bool, as_json: bool) -> None:
    """Take over events and runs from the data folder DIR of codex-flow-systemd-local.

    Stop the original first: runs that are under way count as lost. Twice is once: what is there already is left as it
    is. Exit code 1 if anything had to stay out.
    """
    terminal = sys.stderr.isatty() and not as_json

    def progress(summary: Summary, counts: Counts) -> None:
        if terminal:
            click.echo(f"\r{summary.seen:,} of {counts.events:,} events", nl=False, err=True)

    async def work() -> Summary:
        with open_original(folder, output_bytes=place.settings.output_bytes) as original:
            if not drop_old:
                check_retention(original, place.settings, wall_ms())
            async with AsyncExitStack() as stack:
                engine = None
                if not dry_run or place.exists():
                    engine = (await stack.enter_async_context(place.open(create=not dry_run))).engine
                rehearsed = engine is None or dry_run
                desk = rehearse_in(engine, place.settings, wall_ms) if rehearsed or engine is None else adopt_in(engine)
                return await take_over(
                    original, desk, settings=place.settings, now=wall_ms(), drop_old=drop_old, progress=progress
                )

    summary = run_async(work())
    if terminal:
        click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        print_json(_view(summary, dry_run))
    else:
        _print(summary, dry_run)
    if summary.refusals:
        raise click.exceptions.Exit(1)


def _view(summary: Summary, dry_run: bool) -> dict[str, Any]:
    return {
        "dryRun": dry_run,
        "events": summary.events,
        "runs": summary.runs,
        "lost": summary.lost,
        "present": summary.present,
        "dropped": {"events": summary.dropped_events, "runs": summary.dropped_runs},
        "refusals": summary.refusals,
        "refused": msgspec.to_builtins(summary.refused),
    }


def _print(summary: Summary, dry_run: bool) -> None:
    would = "would take" if dry_run else "took"
    click.echo(f"{would} over {summary.events:,} events with {summary.runs:,} runs, {summary.lost:,} of them lost")
    if summary.present:
        click.echo(f"  {summary.present:,} events were there already")
    if summary.dropped_events or summary.dropped_runs:
        click.echo(f"  left out as too old: {summary.dropped_events:,} events, {summary.dropped_runs:,} runs")
    for one in summary.refused:
        click.echo(f"  refused {one.kind} {clean(one.id)}: {clean(one.reason)}")
    if summary.refusals > len(summary.refused):
        click.echo(f"  and {summary.refusals - len(summary.refused):,} more that were refused")

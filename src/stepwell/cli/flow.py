"""`stepwell flow`: packages, and firing events at them without a server."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import msgspec

from stepwell.cli.chain import to_the_end
from stepwell.cli.check import check
from stepwell.cli.common import (
    Place,
    clean,
    json_option,
    need_run,
    print_json,
    print_table,
    read_file,
    run_async,
    with_place,
)
from stepwell.cli.completion import complete_flows, complete_steps
from stepwell.cli.follow import follow, tellers
from stepwell.cli.new import new
from stepwell.flows.backend import iso_ms
from stepwell.flows.discovery import Discovery, FlowCatalog
from stepwell.flows.events import FlowEvent, parse_event
from stepwell.flows.views import event_id_of, run_view
from stepwell.model.commands import Accepted
from stepwell.model.rows import Run
from stepwell.store.port import Reader
from stepwell.worker.local import Local

event_option = click.option("--event", "event_file", required=True, help="JSON file of the event; - for stdin.")
slots_option = click.option(
    "--slots", default=4, show_default=True, type=click.IntRange(1, 1_000), help="Steps at once."
)


@click.group()
def flow() -> None:
    """List, check and make flow packages, fire events at them, run one step."""


flow.add_command(check)
flow.add_command(new)


@flow.command("list")
@json_option
@with_place
def list_flows(place: Place, as_json: bool) -> None:
    """List the packages that are used, and those that cannot be."""
    found = FlowCatalog().discover(place.cwd)
    if as_json:
        print_json(_discovery_view(found))
    else:
        rows = [
            (one.name, str(one.version), ", ".join(step.name for step in one.steps), str(one.root))
            for one in found.flows
        ]
        print_table(("FLOW", "VERSION", "STEPS", "FOLDER"), rows, empty=f"no flows below {place.cwd}")
        for problem in found.problems:
            click.secho(clean(f"broken: {problem.path}: {problem.reason}"), fg="red", err=True)
            if problem.hint:
                click.echo(clean(f"hint:   {problem.hint}"), err=True)
    if found.problems:
        raise click.exceptions.Exit(1)


def _discovery_view(found: Discovery) -> dict[str, Any]:
    return {
        "flows": [msgspec.to_builtins(one, enc_hook=str) for one in found.flows],
        "problems": [msgspec.to_builtins(one, enc_hook=str) for one in found.problems],
        "shadowed": [msgspec.to_builtins(one, enc_hook=str) for one in found.shadowed],
    }


@flow.command()
@event_option
@slots_option
@json_option
@with_place
def fire(place: Place, event_file: str, slots: int, as_json: bool) -> None:
    """Accept an event and run all steps that it matches, here, to their end. No server is needed.

    Events that the steps send by `next` are followed to the end of the chain. Workflows are left to their app.
    """
    body = read_file(event_file)

    async def work(local: Local, event: FlowEvent) -> Accepted:
        return await local.flows.dispatch(event, by="flow fire")

    run_async(_fire(place, body, slots, as_json, work))


@flow.command()
@click.argument("flow_name", metavar="FLOW", shell_complete=complete_flows)
@click.argument("step_name", metavar="STEP", shell_complete=complete_steps)
@event_option
@json_option
@with_place
def run(place: Place, flow_name: str, step_name: str, event_file: str, as_json: bool) -> None:
    """Run one STEP of FLOW for an event, whatever its trigger says. No server is needed."""
    body = read_file(event_file)

    async def work(local: Local, event: FlowEvent) -> Accepted:
        return await local.flows.run_one(flow_name, step_name, event, by="flow run")

    run_async(_fire(place, body, 1, as_json, work))


async def _fire(place: Place, body: bytes, slots: int, as_json: bool, work: Any) -> None:
    """Dispatches, follows the runs and those that their results lead to, and exits with 1 if one of them failed."""
    async with place.open(create=True, slots=slots, drain_s=0) as local:
        now_iso = iso_ms(local.engine.clock_ms())
        event = parse_event(body, now_iso=now_iso, new_id=lambda: local.engine.new_id("evt_"))
        accepted: Accepted = await work(local, event)
        if not as_json:
            click.echo(f"event {clean(accepted.event_id)}: {accepted.status}, {len(accepted.run_ids)} runs")
        told, workflows = tellers(quiet=as_json), list[Run]()

        async def ended(run_ids: Sequence[str]) -> list[Run]:
            runs = await local.engine.read(partial(_runs, run_ids=run_ids))
            workflows.extend(run for run in runs if run.kind != "step")
            return await follow(local.engine, [run.id for run in runs if run.kind == "step"], told)

        runs = await to_the_end(local.engine, accepted.run_ids, ended)
        event_ids = await local.engine.read(lambda reader: [event_id_of(reader, run) for run in runs])
    if as_json:
        results = [_result_view(run, event_id) for run, event_id in zip(runs, event_ids, strict=True)]
        left = [{"runId": run.id, "name": run.name, "status": run.status} for run in workflows]
        print_json({"eventId": accepted.event_id, "results": results} | ({"workflows": left} if left else {}))
    else:
        for run in workflows:
            hint = f"a worker of its app runs it; see `stepwell runs show {run.id}`"
            click.echo(clean(f"{run.name} is {run.status}: {hint}"))
    if any(run.status != "completed" for run in runs):
        raise click.exceptions.Exit(1)


def _runs(reader: Reader, *, run_ids: Sequence[str]) -> list[Run]:
    return [need_run(reader, run_id) for run_id in run_ids]


def _result_view(run: Run, event_id: str | None) -> dict[str, Any]:
    known = run_view(run)
    view: dict[str, Any] = {"flow": known.get("flowName", ""), "step": known.get("stepName", "")}
    view |= {"runId": run.id, "eventId": event_id}
    return view | {name: known[name] for name in ("status", "result", "error", "failure") if name in known}

"""`stepwell start`: a run of a workflow, from the command line."""

import difflib
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from stepwell.cli.app import app_option, load_app
from stepwell.cli.common import (
    Place,
    clean,
    json_option,
    print_json,
    read_file,
    run_async,
    seconds,
    tags_of,
    with_place,
)
from stepwell.cli.completion import complete_pools, complete_workflows
from stepwell.cli.follow import JsonLines, follow, tellers
from stepwell.flows.jsonvalue import Bounds, parse_json
from stepwell.flows.package import APP_PREFIX, Flow
from stepwell.flows.views import run_view
from stepwell.flows.workflows import needs_workflow, restored
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unknown
from stepwell.model.rows import Run
from stepwell.worker.local import Local


class _Workflow(msgspec.Struct, frozen=True):
    """What is to be started, as far as it is known here."""

    name: str
    version: str
    input: str
    pool: str


@click.command()
@click.argument("name", shell_complete=complete_workflows)
@click.option(
    "--input", "given", default="{}", help="Its arguments: a JSON object of their names; @FILE, or - for stdin."
)
@click.option("--id", "run_id", help="An id of your own: the same again is the same run.")
@click.option(
    "--if-exists",
    type=click.Choice(["return", "raise", "replace"]),
    default="return",
    show_default=True,
    help="What to do when there is a run of this id.",
)
@click.option("--version", "wanted", help="The version of the workflow [the newest].")
@click.option("--tag", "tags", multiple=True, metavar="NAME=TEXT", help="Kept with the run; as often as you like.")
@click.option("--delay", type=float, callback=lambda *given: _span(*given), help="Seconds until it begins.")
@click.option("--deadline", type=float, callback=lambda *given: _span(*given), help="Seconds until it has failed.")
@click.option("--pool", shell_complete=complete_pools, help="Whose limits it is under [as its code says].")
@click.option("--key", help="Runs of one key are limited together.")
@click.option("--priority", default=0, help="Lower goes first.")
@click.option("--wait", is_flag=True, help="Follow it until it has ended, wherever it runs.")
@app_option
@json_option
@with_place
def start(place: Place, name: str, given: str, app: str | None, as_json: bool, wait: bool, **options: Any) -> None:
    """Start a run of the workflow NAME. A worker that has it runs it: `stepwell worker --app MODULE:APP`.

    With --app, the arguments are checked first, and defaults are filled in.
    """
    value = _input(given)
    loaded = load_app(app, place.cwd)

    async def work() -> tuple[c.Started, list[Run]]:
        async with place.open(app=loaded) as local:
            workflow = await _workflow(local, name, options.pop("wanted"), value)
            started = await local.engine.submit(_command(local, workflow, options))
            if not as_json:
                click.echo(f"run {clean(started.run_id)}: {'started' if started.created else 'was there'}")
            elif not wait:
                print_json({"runId": started.run_id, "created": started.created})
            told = JsonLines if as_json else tellers(quiet=False)
            return started, await follow(local.engine, [started.run_id], told) if wait else []

    _, runs = run_async(work())
    for run in runs:
        if run.status != "completed":
            click.echo(clean(run_view(run).get("error", f"run {run.id} was {run.status}")), err=True)
            raise click.exceptions.Exit(1)


def _span(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    return None if value is None else seconds(ctx, param, value)


def _input(given: str) -> dict[str, Any]:
    text: str | bytes = read_file("-" if given == "-" else given[1:]) if given == "-" or given[:1] == "@" else given
    value = parse_json(text, what="--input", bounds=Bounds())
    if not isinstance(value, dict):
        raise Invalid("--input must be a JSON object", hint="""Name the arguments: '{"order_id": 7}'.""", field="input")
    return value


async def _workflow(local: Local, name: str, version: str | None, value: dict[str, Any]) -> _Workflow:
    """By the app that was loaded, else by what the apps told the store that were opened on it."""
    text = msgspec.json.encode(value).decode()
    if local.app is not None:
        found = local.app.registry.workflow(name, version)
        signature = found.signature
        pool = found.options.get("pool")
        signature.bind((), value)  # refuses names that there are not
        bound = signature.bind((), signature.arguments(text))
        return _Workflow(found.path, found.version, bound, "default" if pool is None else pool.name)
    apps = restored(await local.engine.read(lambda reader: reader.manifests("main")), APP_PREFIX)
    full, step_version, pool_name = _among(apps, name)
    return _Workflow(full, version or step_version, text, pool_name)


def _among(apps: tuple[Flow, ...], name: str) -> tuple[str, str, str]:
    steps = {step.name: step for app in apps for step in app.steps}
    same = [one for one in steps if one == name or one.rpartition(":")[2] == name]
    found = steps.get(name) or (steps[same[0]] if len(same) == 1 else None)
    if found is not None:
        return found.name, found.workflow_version or "", found.pool
    if same:
        raise Unknown(f"{name!r} is the name of several workflows", hint=f"Give one of {', '.join(sorted(same))}.")
    near = difflib.get_close_matches(name, steps, n=1)
    known = f"Did you mean {near[0]}?" if near else f"Workflows here: {', '.join(sorted(steps)[:20]) or 'none'}."
    hint = f"{known} An app that no worker has opened here yet needs --app MODULE:APP."
    raise Unknown(f"no app on this database has a workflow {name!r}", hint=hint)


def _command(local: Local, workflow: _Workflow, options: Mapping[str, Any]) -> c.StartRun:
    now = local.engine.clock_ms()
    return c.StartRun(
        id=options["run_id"] or local.engine.new_id(),
        name=workflow.name,
        input=workflow.input,
        version=workflow.version,
        reuse=options["if_exists"],
        pool=options["pool"] or workflow.pool,
        pool_key=options["key"],
        priority=options["priority"],
        requires=needs_workflow(workflow.name),
        due_at=_after(now, options["delay"]),
        deadline=_after(now, options["deadline"]),
        tags=_json_of(tags_of(options["tags"])),
        by="cli",
    )


def _after(now: int, seconds: float | None) -> int | None:
    return None if seconds is None else now + round(seconds * 1_000)


def _json_of(tags: dict[str, str]) -> str | None:
    return msgspec.json.encode(tags).decode() if tags else None

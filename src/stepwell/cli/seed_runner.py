"""The verbs of the seed's runner (source: spec codex-flows 4.8): packages of this folder, without a memory."""

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from stepwell.cli.common import clean, print_json, read_file, run_async
from stepwell.cli.seed_verbs import Asked, all_ended, event_in
from stepwell.flows.discovery import discover
from stepwell.flows.events import FlowEvent
from stepwell.model.commands import Accepted
from stepwell.model.errors import Invalid, StepwellError, Unknown
from stepwell.model.rows import Run
from stepwell.worker.local import Local


def list_flows(asked: Asked) -> None:
    """name TAB root, a line each; broken packages on stderr, and exit code 1."""
    found = discover(asked.place.cwd)
    for flow in found.flows:
        click.echo(f"{clean(flow.name)}\t{clean(str(flow.root))}")
    for problem in found.problems:
        click.echo(clean(f"{problem.path}: {problem.reason}"), err=True)
    if found.problems:
        raise click.exceptions.Exit(1)


def fire(asked: Asked) -> None:
    """{eventId, results: [{flow, step, result}]}: all steps that match, and what they lead to, here, to their end."""

    async def work(local: Local, event: FlowEvent) -> Accepted:
        return await local.flows.dispatch(event, by="fire")

    accepted, runs = _here(asked, work)
    print_json({"eventId": accepted.event_id, "results": [_report(run) for run in runs if run.result is not None]})
    _tell_failures(runs)


def run_step(asked: Asked) -> None:
    """{flow, step, result}: one step, whatever its trigger says."""
    if len(asked.words) < 2:
        raise Invalid("run requires <flow> <step>", hint="`codex-flow list` lists the flows.")
    flow_name, step_name = asked.words

    async def work(local: Local, event: FlowEvent) -> Accepted:
        flows = {flow.name: flow for flow in local.flows.discover().flows}
        if flow_name not in flows:
            raise Unknown(f"Unknown flow: {flow_name}", hint=f"Flows here: {', '.join(flows) or 'none'}.")
        if flows[flow_name].step(step_name) is None:
            steps = ", ".join(step.name for step in flows[flow_name].steps)
            raise Unknown(f"Unknown step {step_name} in flow {flow_name}", hint=f"Its steps: {steps}.")
        return await local.flows.run_one(flow_name, step_name, event, by="run")

    _, runs = _here(asked, work)
    for run in runs:
        if run.result is not None:
            print_json(_report(run))
    _tell_failures(runs)


def _here(asked: Asked, work: Any) -> tuple[Accepted, list[Run]]:
    """Runs steps in a store of this process alone: as in the seed, what is fired here is not kept, nor compared."""
    if not asked.options["event"]:
        raise Invalid("missing --event <path>", hint="Name a JSON file, or - for stdin.")
    body = read_file(asked.options["event"])
    place = msgspec.structs.replace(asked.place, url="memory:")

    async def start() -> tuple[Accepted, list[Run]]:
        slots = max(1, asked.options["slots"])
        async with place.open(create=True, slots=slots, drain_s=0, options=asked.flow_options()) as local:
            try:
                event = event_in(body, local)
            except StepwellError as error:
                message = f"event file must contain at least string id and type: {error.message}"
                raise Invalid(message, hint=error.hint) from None
            accepted: Accepted = await work(local, event)
            return accepted, await all_ended(local, accepted.run_ids)

    return run_async(start())


def _report(run: Run) -> dict[str, Any]:
    flow_name, _, step_name = run.name.partition("/")
    return {"flow": flow_name, "step": step_name, "result": msgspec.json.decode(run.result or "null")}


def _tell_failures(runs: Sequence[Run]) -> None:
    """What failed without a result, with the end of its stderr; then exit code 1."""
    failed = [run for run in runs if run.result is None]
    for run in failed:
        error = msgspec.json.decode(run.error or "{}")
        click.echo(clean(f"flow step {run.name} failed: {error.get('message', run.status)}"), err=True)
        for line in error.get("stderr", "").splitlines():
            click.echo(clean(line), err=True)
    if failed:
        raise click.exceptions.Exit(1)

"""`stepwell signal`: tells a run something that it waits for."""

import click

from stepwell.cli.common import Place, clean, json_option, print_json, run_async, with_place
from stepwell.cli.completion import complete_runs, complete_signals
from stepwell.flows.jsonvalue import Bounds, canonical_json, parse_json
from stepwell.model import commands as c


@click.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_runs)
@click.argument("name", shell_complete=complete_signals)
@click.argument("value", metavar="[JSON]", default="null")
@click.option("--key", help="The same key again is the same signal.")
@json_option
@with_place
def signal(place: Place, run_id: str, name: str, value: str, key: str | None, as_json: bool) -> None:
    """Send RUN the signal NAME with a JSON value [null].

    For example: stepwell signal order-7 approval '{"approved": true, "by": "ann"}'
    """
    payload = canonical_json(parse_json(value, what="the value", bounds=Bounds()))

    async def work() -> tuple[str, int]:
        to = run_id
        async with place.open() as local:
            while True:
                sent = await local.engine.submit(c.Signal(to, name, payload, dedup=key, by="cli"))
                if sent.moved_to is None:
                    return to, sent.seq
                to = sent.moved_to

    to, seq = run_async(work())
    if as_json:
        print_json({"runId": to, "seq": seq})
    else:
        click.echo(f"{clean(to)}: has signal {clean(name)} as entry {seq}")

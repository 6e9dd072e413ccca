"""`stepwell serve`."""

import logging

import click

from stepwell.cli.common import Place, run_async, seconds, with_place
from stepwell.server.serve import listen
from stepwell.server.serve import serve as serve_forever


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, envvar="STEPWELL_HOST", help="Loopback address.")
@click.option(
    "--port",
    default=7345,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="STEPWELL_PORT",
    help="0 takes a free one.",
)
@click.option(
    "--slots",
    default=4,
    show_default=True,
    type=click.IntRange(0, 10_000),
    envvar="STEPWELL_SLOTS",
    help="Steps at once; 0: no worker here.",
)
@click.option(
    "--drain", default=30.0, callback=seconds, show_default=True, help="Seconds that running steps get at the end."
)
@with_place
def serve(place: Place, host: str, port: int, slots: int, drain: float) -> None:
    """Accept events over HTTP and run the steps that they match, until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener = listen(host, port)

    async def work() -> None:
        async with place.open(create=True, slots=slots, roles=True, drain_s=drain) as local:
            for problem in local.flows.discover().problems:
                click.echo(f"warning: {problem.path}: {problem.reason}", err=True)
            await serve_forever(local, listener, on_listening=told)

    def told(url: str) -> None:
        click.echo(f"listening on {url}  flows {place.cwd}  database {place.url}  slots {slots}")

    try:
        run_async(work(), starts_processes=slots > 0)
    finally:
        listener.close()

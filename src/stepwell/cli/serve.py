"""`stepwell serve` and `stepwell worker`: what goes on until it is told to end."""

import asyncio
import logging
import os
import shlex
from functools import partial
from typing import TYPE_CHECKING

import click

from stepwell.cli.app import app_option, load_app
from stepwell.cli.common import ORIGINAL_DATA, Place, clean, run_async, seconds, with_place
from stepwell.cli.given import flow_options, server_options
from stepwell.cli.options import setting_option
from stepwell.flows.options import EXECUTORS, FlowOptions
from stepwell.flows.original import FILE as ORIGINAL
from stepwell.flows.original import last_event
from stepwell.model.rows import Event
from stepwell.server.options import ServerOptions
from stepwell.server.serve import listen
from stepwell.server.serve import serve as serve_forever
from stepwell.store.address import public_address
from stepwell.store.port import Reader
from stepwell.worker.ending import when_told_to_end
from stepwell.worker.local import Local

if TYPE_CHECKING:  # loaded only by whoever has an app
    from stepwell.workflow.app import App

executor_option = click.option("--executor", type=click.Choice(EXECUTORS), help="How steps are started [direct].")
bun_option = click.option("--bun", help="Path of bun [node_modules/.bin, then PATH].")
workspace_option = click.option("--workspace-url", help="The ws:// address of a workspace backend, told to steps.")
drain_option = click.option(
    "--drain", default=30.0, callback=seconds, show_default=True, help="Seconds that running steps get at the end."
)


@click.command()
@setting_option("STEPWELL_HOST", default="127.0.0.1", show_default=True, help="Address; without a secret a loopback.")
@setting_option(
    "STEPWELL_PORT", default=7345, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@setting_option(
    "STEPWELL_SLOTS",
    default=4,
    show_default=True,
    type=click.IntRange(0, 10_000),
    help="Steps at once; 0: no worker here.",
)
@click.option("--no-worker", is_flag=True, help="The same as --slots 0: workers are other processes.")
@click.option("--secret", help="Signs requests. Others on this machine see arguments: rather set STEPWELL_SECRET.")
@executor_option
@bun_option
@workspace_option
@drain_option
@app_option
@with_place
def serve(
    place: Place,
    host: str,
    port: int,
    slots: int,
    no_worker: bool,
    secret: str | None,
    executor: str | None,
    bun: str | None,
    workspace_url: str | None,
    drain: float,
    app: str | None,
) -> None:
    """Accept events over HTTP and run the steps and workflows that they match, until SIGTERM."""
    run_server(
        place,
        (host, port),
        0 if no_worker else slots,
        drain,
        options=flow_options(os.environ, executor=executor, bun=bun, workspace_url=workspace_url),
        guards=server_options(os.environ, secret=secret, events_dir=place.data / "events"),
        app=load_app(app, place.cwd),
    )


def run_server(
    place: Place,
    address: tuple[str, int],
    slots: int,
    drain_s: float,
    *,
    options: FlowOptions,
    guards: ServerOptions,
    app: "App | None" = None,
) -> None:
    """Listens, tells where on standard output, and serves until it is told to end."""
    _log()
    listener = listen(*address, secured=bool(guards.secrets))

    async def work() -> None:
        async with place.open(
            create=True,
            slots=slots,
            roles=True,
            drain_s=drain_s,
            options=options,
            events_dir=guards.events_dir,
            app=app,
        ) as local:
            await _warn(place, local)
            await serve_forever(local, listener, options=guards, on_listening=told)

    def told(url: str) -> None:
        where = public_address(place.url)
        click.echo(f"listening on {url}  {_what(place, app)}  database {where}  slots {slots}")

    try:
        run_async(work(), starts_processes=slots > 0)
    finally:
        listener.close()


def _what(place: Place, app: "App | None") -> str:
    """What is run here, for people."""
    return f"flows {place.cwd}" + ("" if app is None else f"  app {app.name}")


@click.command()
@setting_option("STEPWELL_SLOTS", default=4, show_default=True, type=click.IntRange(1, 10_000), help="Steps at once.")
@executor_option
@bun_option
@workspace_option
@drain_option
@app_option
@with_place
def worker(
    place: Place,
    slots: int,
    executor: str | None,
    bun: str | None,
    workspace_url: str | None,
    drain: float,
    app: str | None,
) -> None:
    """Run steps and workflows of a database that others fill, without a listener.

    SIGTERM drains; a second one hands back at once.
    """
    _log()
    options = flow_options(os.environ, executor=executor, bun=bun, workspace_url=workspace_url)
    loaded = load_app(app, place.cwd)

    async def work() -> None:
        async with place.open(
            create=True, slots=slots, roles=True, drain_s=drain, options=options, app=loaded
        ) as local:
            told = _when_told(local)
            await _warn(place, local)
            assert local.worker is not None, "slots were asked for"
            where = public_address(place.url)
            click.echo(f"working as {local.worker.name}  {_what(place, loaded)}  database {where}  slots {slots}")
            await told.wait()

    run_async(work())


def _when_told(local: Local) -> asyncio.Event:
    """Is set by SIGTERM or SIGINT; a second one cuts the drain short that comes then."""
    told = asyncio.Event()

    def end() -> None:
        if told.is_set() and local.worker is not None:
            local.worker.hurry()
        told.set()

    when_told_to_end(end)
    return told


def _log() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


async def _warn(place: Place, local: Local) -> None:
    """Names broken packages, and data of the original that nobody has taken over."""
    for problem in local.flows.discover().problems:
        click.echo(f"warning: {problem.path}: {problem.reason}", err=True)
    for folder in dict.fromkeys((place.data, place.cwd / ORIGINAL_DATA)):
        event_id = last_event(folder / ORIGINAL)
        if event_id is not None and await local.engine.read(partial(_event, event_id=event_id)) is None:
            command = shlex.join(
                ["stepwell", "import", "codex-flow-systemd-local", str(folder), "--db", public_address(place.url)]
            )
            told = f"{folder / ORIGINAL} is the original's; `{command}`"
            click.echo(f"note: {clean(told)} takes its events and runs over", err=True)


def _event(reader: Reader, *, event_id: str) -> Event | None:
    return reader.event("main", event_id)

"""`stepwell demo`: a real server, real steps, a real kill -9, and what is left of it: everything."""

import asyncio
import json
import os
import shutil
import tempfile
import time
import urllib.request
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click

from stepwell.cli.common import Place, clean, find_place, need_run, print_table, run_async, status_text
from stepwell.cli.demo_approval import RUN, show_approval, unpack_app
from stepwell.cli.demo_process import LEASE_S, Process, call
from stepwell.cli.follow import Screen
from stepwell.engine.engine import Engine
from stepwell.flows.runners.base import Tools
from stepwell.model.errors import Unavailable
from stepwell.model.rows import Output, Run
from stepwell.store.port import Reader

EVENT: dict[str, Any] = {
    "id": "shop:order:4711:paid",
    "type": "shop.order.paid",
    "source": "shop",
    "payload": {
        "orderId": "4711",
        "customer": {"name": "Ada", "email": "ada@example.org"},
        "total": 42.5,
        "items": [{"sku": "well-bucket", "quantity": 2}, {"sku": "rope-10m", "quantity": 1}],
    },
}
#: The step in whose middle the server is killed: when it has said this, however long a busy machine takes for it.
KILLED, KILL_AT = "parcel/pack", "packed 30 %"
LIMIT_S = 90.0


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where to work; kept. Default: a new folder.")
def demo(folder: Path | None) -> None:
    """See it work, and survive a kill -9, in half a minute."""
    home = folder or Path(tempfile.mkdtemp(prefix="stepwell-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    source, names = unpack_app(home), _unpack(home)
    place = find_place(home, None, None)
    say(f"A shop's flows in {home}/flows: {', '.join(names)}.")
    say("1. Start a server with a worker in it, and send it the event of a paid order.")
    server = _Server(home)
    try:
        server.start()
        accepted = server.post_event(EVENT)
        _show_accepted(accepted, server.get(f"/events/{EVENT['id']}"))
        say("2. The steps run as processes. One fails and is tried again; one asks for somebody.")
        runs = run_async(_watch(place, server, accepted["runIds"]))
        again = server.post_event(EVENT)
        say(f"4. The same event again is told as {again['status']}: the same {len(again['runIds'])} runs, none twice.")
    finally:
        server.stop()
    rows = [(run.name, status_text(run), run.id) for run in runs]
    print_table(("STEP", "STATUS", "RUN"), rows, empty="no runs")
    wrong = [*_wrong(runs), *show_approval(place, source, say)]
    say("8. What the doctor says of the database whose processes were killed under way, twice:")
    call(home, "doctor")
    _what_next(home, runs)
    if wrong:
        raise click.ClickException(f"the demo did not end as it should: {'; '.join(wrong)}. Please report it.")


def say(text: str) -> None:
    """A heading."""
    click.secho(f"\n{text}", bold=True)


def _unpack(home: Path) -> list[str]:
    """Copies the demo's flows; the one that needs Bun only where Bun is."""
    with as_file(files("stepwell.cli").joinpath("demo_flows")) as source:
        names = sorted(path.name for path in source.iterdir() if path.is_dir() and path.name != "__pycache__")
        bun = Tools(dirs=(Path.cwd(),), search_path=os.environ.get("PATH")).find("bun")
        if bun is None:
            names.remove("receipt")
            click.echo("Bun is not here, so the step that is written in TypeScript is left out (npm install bun).")
        else:
            (home / "node_modules" / ".bin").mkdir(parents=True, exist_ok=True)
            link = home / "node_modules" / ".bin" / "bun"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(bun).resolve())
        for name in names:
            shutil.copytree(source / name, home / "flows" / name, dirs_exist_ok=True)
    return names


class _Server:
    """A `stepwell serve` of its own."""

    def __init__(self, home: Path) -> None:
        self._process, self.url = Process(home, "listening on ", "serve", "--port", "0", "--slots", "8"), ""
        self.kill, self.stop = self._process.kill, self._process.stop

    def start(self) -> None:
        self.url = self._process.start().split()[2]

    def post_event(self, event: dict[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        return self._ask(urllib.request.Request(f"{self.url}/events", json.dumps(event).encode(), headers))  # noqa: S310

    def get(self, path: str) -> dict[str, Any]:
        return self._ask(urllib.request.Request(f"{self.url}{path}"))  # noqa: S310

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - loopback, our own server
            answer: dict[str, Any] = json.load(response)
            return answer


def _show_accepted(accepted: dict[str, Any], stored: dict[str, Any]) -> None:
    click.echo(f"POST /events: {accepted['status']}, {accepted['matched']} steps match; their runs are durable now")
    for miss in stored["event"].get("misses", ()):
        click.echo(f"  {miss['flow']}/{miss['step']} does not: {clean(miss['reason'])}")


async def _watch(place: Place, server: _Server, run_ids: list[str]) -> list[Run]:
    """Shows the runs as they go; kills the server once on the way, and starts it again."""
    watched = [_Watched(run_id) for run_id in run_ids]
    started, killed = time.monotonic(), False
    async with place.open() as local:
        while True:
            live = [await one.look(local.engine) for one in watched]
            if not any(live):
                return [one.run for one in watched if one.run is not None]
            if not killed and any(one.is_half_done for one in watched):
                killed = True
                await asyncio.to_thread(_kill_and_start, server)
            if time.monotonic() - started > LIMIT_S:
                raise Unavailable("the runs did not end in time", hint="Is the machine very busy? Try again.")
            await asyncio.sleep(0.1)


class _Watched:
    """One run on the screen."""

    def __init__(self, run_id: str) -> None:
        self._run_id, self._seen, self._screen = run_id, 0, Screen()
        self.run: Run | None = None
        self.is_half_done = False

    async def look(self, engine: Engine) -> bool:
        """Shows what is new; answers whether more may come."""
        run, output = await engine.read(self._read)
        self.run = run
        self._seen = output[-1].n if output else self._seen
        self._screen.show(run, output)
        self.is_half_done |= run.name == KILLED and any(KILL_AT in one.text for one in output)
        return not run.terminal or bool(output)

    def _read(self, reader: Reader) -> tuple[Run, list[Output]]:
        run = need_run(reader, self._run_id)
        return run, reader.output(run.no, after=self._seen)


def _kill_and_start(server: _Server) -> None:
    say("3. kill -9 of the server, in the middle of a step. Then start it again.")
    server.kill()
    server.start()
    click.echo(f"The dead worker's lease ends {LEASE_S} s after its last heartbeat; then its step is tried anew.")


def _wrong(runs: list[Run]) -> list[str]:
    """What is not so: each step done, the one that asks for somebody said so, and the killed one tried again."""
    said = {run.name: run.result_status for run in runs}
    packed = next(run for run in runs if run.name == KILLED)
    checks = (
        ("a step did not complete", any(run.status != "completed" for run in runs)),
        ("nobody was asked about the address", said["parcel/check-address"] != "needs_intervention"),
        ("the step that was killed was not tried again", packed.epoch < 2),
    )
    return [wrong for wrong, is_so in checks if is_so]


def _what_next(home: Path, runs: list[Run]) -> None:
    packed = next(run for run in runs if run.name == KILLED)
    say("Try next:")
    for command, why in (
        (f"stepwell runs show {packed.id}", "the journal of the run that was killed: both attempts"),
        (f"stepwell runs journal {RUN}", "all that the workflow did, and why it did it once"),
        ("stepwell runs list --attention", "what asks for somebody"),
        (f"stepwell events show '{EVENT['id']}'", "the event, its runs, and why customs did not match"),
        (f"stepwell events replay '{EVENT['id']}' --step parcel/reserve-stock", "run a step again"),
        (
            "stepwell serve --app shop:app",
            "a server of your own; `curl --json @event.json` to its /events",
        ),
    ):
        click.echo(f"  {command}\n      {why}")
    click.echo(f"They all want to be run in {home}, or with --cwd {home}.")

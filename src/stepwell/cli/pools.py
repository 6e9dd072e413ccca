"""`stepwell pools`: the limits that steps share."""

from collections import Counter
from typing import Any

import click
import msgspec
from msgspec import Struct

from stepwell.cli.common import Place, json_option, print_json, print_notes, print_table, run_async, with_place
from stepwell.cli.completion import complete_pools
from stepwell.flows.tables import MAX_NAME_BYTES
from stepwell.model.commands import SetPool
from stepwell.model.errors import Invalid, Unknown
from stepwell.model.rows import Pool
from stepwell.store.port import Reader, RunFilter
from stepwell.worker.why import Note, notes_of_open

#: How many running and how many queued runs are counted by pool; more are told as so many and a plus.
COUNTED = 2_000
MAX_LIMIT = 1_000_000


class Used(Struct, frozen=True):
    """A pool, whether somebody set it, and how many of its runs are under way and wait."""

    pool: Pool
    is_set: bool
    running: int
    waiting: int
    more: bool


class Limit(click.ParamType[int | None]):
    """A whole number, or `none`."""

    name = "N|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """0 stands for none."""
        if isinstance(value, int):
            return value
        if value == "none":
            return 0
        if not value.isascii() or not value.isdecimal() or not 1 <= int(value[:10]) <= MAX_LIMIT:
            self.fail(f"{value!r} is neither a whole number from 1 to {MAX_LIMIT:,} nor none.", param, ctx)
        return int(value)


@click.group()
def pools() -> None:
    """List, limit, pause and resume pools."""


@pools.command("list")
@json_option
@with_place
def list_pools(place: Place, as_json: bool) -> None:
    """List the pools that have a limit or a run, and what goes on in them."""

    async def work() -> tuple[list[Used], list[Note]]:
        async with place.open() as local:
            engine = local.engine
            return await engine.read(lambda reader: (_used(reader), [] if as_json else notes_of_open(reader, engine)))

    found, notes = run_async(work())
    if as_json:
        print_json({"pools": [_view(one) for one in found]})
        return
    header = ("POOL", "LIMIT", "EACH KEY", "RATE", "RUNNING", "WAITING", "STATE")
    print_table(header, [_row(one) for one in found], empty="no pools: nothing is limited, and nothing runs")
    print_notes(notes)


def _used(reader: Reader) -> list[Used]:
    rows = {pool.name: pool for pool in reader.pools("main")}
    running = reader.list_runs(RunFilter(status="running"), limit=COUNTED)
    waiting = reader.list_runs(RunFilter(status="queued"), limit=COUNTED)
    runs, waits = Counter(run.pool for run in running.rows), Counter(run.pool for run in waiting.rows)
    more = running.cursor is not None or waiting.cursor is not None
    names = sorted(rows.keys() | runs.keys() | waits.keys())
    return [Used(rows.get(name) or Pool("main", name), name in rows, runs[name], waits[name], more) for name in names]


def _view(used: Used) -> dict[str, Any]:
    pool = used.pool
    view = {
        "name": pool.name,
        "limit": pool.limit,
        "keyLimit": pool.key_limit,
        "rate": pool.rate,
        "rateMs": pool.rate_ms if pool.rate else None,
        "paused": pool.paused,
        "running": used.running,
        "waiting": used.waiting,
        "countedAll": not used.more,
    }
    return {key: value for key, value in view.items() if value is not None}


def _row(used: Used) -> tuple[str, ...]:
    pool, plus = used.pool, "+" if used.more else ""
    rate = f"{pool.rate} per {pool.rate_ms / 1_000:g} s" if pool.rate else "-"
    limits = (str(pool.limit or "-"), str(pool.key_limit or "-"), rate)
    return (pool.name, *limits, f"{used.running}{plus}", f"{used.waiting}{plus}", "paused" if pool.paused else "open")


@pools.command("set")
@click.argument("name", shell_complete=complete_pools)
@click.option("--limit", type=Limit(), help="Runs at once in the whole pool.")
@click.option("--key-limit", type=Limit(), help="Runs at once for each key.")
@click.option("--rate", type=Limit(), help="Starts per --rate-ms.")
@click.option("--rate-ms", type=click.IntRange(1, 86_400_000), help="Milliseconds that a rate is for [1000].")
@json_option
@with_place
def set_pool(place: Place, name: str, as_json: bool, **given: int | None) -> None:
    """Change limits of a pool; what is not named stays. `none` takes a limit away."""
    changes = {key: value or None for key, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("Say what to set: --limit, --key-limit or --rate.", click.get_current_context())
    _change(place, name, changes, as_json)


@pools.command()
@click.argument("name", shell_complete=complete_pools)
@json_option
@with_place
def pause(place: Place, name: str, as_json: bool) -> None:
    """Start nothing more of a pool; what runs goes on."""
    _change(place, name, {"paused": True}, as_json)


@pools.command()
@click.argument("name", shell_complete=complete_pools)
@json_option
@with_place
def resume(place: Place, name: str, as_json: bool) -> None:
    """Start runs of a paused pool again."""
    _change(place, name, {"paused": False}, as_json, must_be=True)


@pools.command()
@click.argument("name", shell_complete=complete_pools)
@json_option
@with_place
def remove(place: Place, name: str, as_json: bool) -> None:
    """Take all limits of a pool away. Its runs stay."""
    nothing = {"limit": None, "key_limit": None, "rate": None, "paused": False}
    _change(place, name, nothing, as_json, must_be=True)


def _change(place: Place, name: str, changes: dict[str, Any], as_json: bool, *, must_be: bool = False) -> None:
    if not 1 <= len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable():
        hint = f"Use a text of 1 to {MAX_NAME_BYTES} bytes, as in a step's `pool`."
        raise Invalid(f"{name!r:.80} cannot be the name of a pool", hint=hint)

    async def work() -> Used:
        async with place.open() as local:
            rows = await local.engine.read(lambda reader: reader.pools("main"))
            pool = next((one for one in rows if one.name == name), None)
            if pool is None and must_be:
                known = ", ".join(one.name for one in rows) or "none"
                raise Unknown(f"no pool {name!r} has a limit or is paused", hint=f"Pools that do: {known}.", pool=name)
            await local.engine.submit(SetPool(msgspec.structs.replace(pool or Pool("main", name), **changes)))
            used = await local.engine.read(_used)
            return next((one for one in used if one.pool.name == name), Used(Pool("main", name), False, 0, 0, False))

    used = run_async(work())
    if as_json:
        print_json({"pool": _view(used)})
    else:
        print_table(("POOL", "LIMIT", "EACH KEY", "RATE", "RUNNING", "WAITING", "STATE"), [_row(used)], empty="")

"""The demo's second half: a workflow in Python waits for somebody, is killed there, and ends as if nothing had been."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import as_file, files
from pathlib import Path

import click
import msgspec

from stepwell.cli.common import Place, need_run, print_table, run_async
from stepwell.cli.demo_process import Process, call
from stepwell.flows.backend import iso_ms
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.rows import Entry, Run
from stepwell.store.port import Reader

RUN = "order-4712"
ORDER = '{"order": {"id": "4712", "customer": "Grace", "total": 4250}}'
APPROVED = '{"approved": true, "by": "Ada"}'
RESULT = "Thank you, Grace: Ada has approved order 4712"
BOOKED = ["reserved", "paid: 4250.00 from Grace"]
LIMIT_S = 30.0
Say = Callable[[str], None]


def unpack_app(home: Path) -> Path:
    """Copies the app, which is one file and the SQL of its table; where the file is.

    Raises `Invalid` rather than to write over a file that somebody has made, or changed.
    """
    with as_file(files("stepwell.cli").joinpath("demo_app")) as source:
        for path in (one for one in source.rglob("*") if one.suffix in (".py", ".sql")):
            _copy(path, home / path.relative_to(source))
    return home / "shop.py"


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.read_bytes() != source.read_bytes():
        hint = "Give --dir a new folder, or leave it out."
        raise Invalid(f"{target} is not, or no longer, the demo's: it is left as it is", hint=hint, field="dir")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def show_approval(place: Place, source: Path, say: Say) -> list[str]:
    """Tells it step by step; what was not as it should be, which is nothing."""
    home = place.cwd
    say(f"5. A workflow in Python, from {source}:")
    click.echo(_body(source))
    worker = Process(home, "working as ", "worker", "--app", "shop:app")
    try:
        worker.start()
        call(home, "start", "large_order", "--id", RUN, "--input", ORDER)
        _wait(place)
        click.echo(f"It waits in the file, and in no memory. Booked so far: {', '.join(_booked(place))}.")
        say("6. kill -9 of that worker. Then start another, and answer from outside.")
        worker.kill()
        worker.start()
        call(home, "signal", RUN, "approval", APPROVED, "--key", "ada")
        result = call(home, "runs", "result", RUN)
    finally:
        worker.stop()
    say("7. Its journal, with the attempts of both workers. What was done before the kill was not done again:")
    entries, booked = run_async(_entries(place)), _booked(place)
    print_table(("SEQ", "AT", "ENTRY", "STEP", "WHAT"), map(_row, entries), empty="nothing")
    click.echo(f"The rows of its own table: {'; '.join(booked)}.")
    return [
        wrong
        for wrong, is_so in (
            (f"the run did not end with {RESULT!r}", msgspec.json.decode(result) != RESULT),
            (f"its rows are not {BOOKED}, each once", booked != BOOKED),
            ("it did not go from one worker to another", len(set(_workers(entries))) != 2),
        )
        if is_so
    ]


def _body(source: Path) -> str:
    """The workflow's own lines."""
    return "\n" + source.read_text().partition("@app.workflow\n")[2].partition("\n\n\n")[0] + "\n"


def _wait(place: Place) -> None:
    """Until the run waits and no worker has it. Raises `Unavailable` when it takes too long."""

    async def work() -> None:
        async with place.open() as local:
            number = (await local.engine.read(_run)).no
            await local.engine.wait_run(number, _is_parked, timeout_s=LIMIT_S)

    try:
        run_async(work())
    except TimeoutError:
        hint = f"See `stepwell runs show {RUN} --cwd {place.cwd}`."
        raise Unavailable("the workflow did not come to its wait in time", hint=hint) from None


def _is_parked(run: Run) -> bool:
    return run.status == "waiting" or run.terminal  # it has ended where the demo is shown again in its folder


def _run(reader: Reader) -> Run:
    return need_run(reader, RUN)


async def _entries(place: Place) -> list[Entry]:
    async with place.open() as local:
        return await local.engine.read(lambda reader: reader.entries(_run(reader).no))


def _booked(place: Place) -> list[str]:
    """What the workflow's mutation has written into the app's own table."""
    assert place.path is not None
    with closing(sqlite3.connect(f"{place.path.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("select what from booking where order_id = '4712' order by rowid").fetchall()
    return [what for (what,) in rows]


def _row(entry: Entry) -> tuple[str, ...]:
    return str(entry.seq), iso_ms(entry.at)[11:], entry.kind, entry.key or "", _what(entry)


def _what(entry: Entry) -> str:
    """The part of an entry that tells the story."""
    data = msgspec.json.decode(entry.data)
    if entry.kind == "attempt.started":
        return f"{data['task_kind']}, by worker {data['worker']}"
    told = next((data[key] for key in ("result", "payload", "value", "args", "input", "waits") if key in data), "")
    if told is None:
        return ""
    return told if isinstance(told, str) else msgspec.json.encode(told).decode()


def _workers(entries: list[Entry]) -> list[str]:
    """Who has run the body, in order."""
    started = [msgspec.json.decode(entry.data) for entry in entries if entry.kind == "attempt.started"]
    return [one["worker"] for one in started if one["task_kind"] == "turn"]

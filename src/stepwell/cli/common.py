"""What commands share: where the data is, how it is opened, how things are printed."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
import msgspec
from msgspec import Struct

from stepwell.cli.given import flow_options
from stepwell.cli.options import named, setting_option
from stepwell.flows.options import FlowOptions
from stepwell.model.errors import Invalid, Unknown
from stepwell.model.rows import Event, Run
from stepwell.model.settings import Settings, settings_from
from stepwell.store.address import public_address
from stepwell.store.port import Reader
from stepwell.worker.local import Local, open_local, open_store
from stepwell.worker.why import Note

if TYPE_CHECKING:  # loaded only by whoever has an app
    from stepwell.workflow.app import App

R = TypeVar("R")
DATABASE = "stepwell.sqlite"
#: Where the seed's programs keep their data.
ORIGINAL_DATA = Path(".codex") / "flow-backend"
LAST = (1 << 63) - 1
#: DEL, C1, and what turns the direction of writing: the controls that JSON does not escape of itself.
_MOVES = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Place(Struct, frozen=True):
    """Which flows and which database a command is about; `data` is the folder for what is kept beside it."""

    cwd: Path
    data: Path
    url: str
    settings: Settings

    @property
    def path(self) -> Path | None:
        """The file of the database; None when it is no file."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    def exists(self) -> bool:
        """Whether there is a database. Raises `Unavailable` where its server does not say."""
        return open_store(self.url, self.settings).exists() if self.path is None else self.path.exists()

    def _missing(self) -> Unknown:
        if self.path is None:
            hint = "Look at the address and its schema; `stepwell serve` and `stepwell db migrate` make the tables."
            return Unknown(f"there are no tables of Stepwell in {public_address(self.url)}", hint=hint)
        hint = "Use --cwd, --data-dir or --db; `stepwell serve` and `stepwell flow fire` make a database."
        if (self.cwd / ORIGINAL_DATA / DATABASE).exists():
            hint = f"codex-flow-systemd-local has one here: --data-dir {self.cwd / ORIGINAL_DATA}"
        return Unknown(f"no database {self.path}", hint=hint, path=str(self.path))

    @asynccontextmanager
    async def open(
        self,
        *,
        create: bool = False,
        slots: int = 0,
        roles: bool = False,
        drain_s: float = 30.0,
        options: FlowOptions | None = None,
        events_dir: Path | None = None,
        app: "App | None" = None,
    ) -> AsyncIterator[Local]:
        """Opens the store, and with `slots` a worker on it. Unless it may `create` one, there has to be one."""
        if not create and not self.exists():
            raise self._missing()
        if slots and options is None:
            options = flow_options(os.environ)
        roles = roles or slots > 0
        async with open_local(
            self.url,
            self.cwd,
            settings=self.settings,
            options=options,
            slots=slots,
            roles=roles,
            drain_s=drain_s,
            events_dir=events_dir,
            app=app,
        ) as local:
            yield local


def with_place(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --cwd, --data-dir and --db, and hands the command the place that they name."""

    @setting_option("STEPWELL_CWD", type=click.Path(path_type=Path), help="Folder of the flows [.].")
    @setting_option(
        "STEPWELL_DATA_DIR", type=click.Path(path_type=Path), help="Folder of the database [CWD/.stepwell]."
    )
    @setting_option("STEPWELL_DB", help="Database: a file, sqlite:///FILE, or postgresql://USER@HOST/DATABASE.")
    @wraps(command)
    def wrapped(*args: Any, cwd: Path | None, data_dir: Path | None, db: str | None, **kwargs: Any) -> None:
        said = named(click.get_current_context(), "cwd", "STEPWELL_CWD")
        command(find_place(cwd, data_dir, db, cwd_from=said), *args, **kwargs)

    return wrapped


def find_place(
    cwd: Path | None, data_dir: Path | None, db: str | None, *, cwd_from: str = "--cwd", usual: str = ".stepwell"
) -> Place:
    """The place that options and environment name, else CWD/`usual`; a folder that is not there is an error."""
    try:
        folder = (cwd or Path.cwd()).absolute()
    except FileNotFoundError:  # a relative path, in a folder that was removed
        raise Invalid("the present folder is gone", hint="Change to a folder that exists.") from None
    if not folder.is_dir():
        raise Invalid(f"no folder {folder}", hint=f"{cwd_from} names the folder that holds flows/ or .codex/flows/.")
    data = (data_dir or folder / usual).absolute()
    url = db or str(data / DATABASE)
    if "://" not in url and not url.startswith("memory:"):
        url = f"sqlite:///{Path(url).absolute()}"
    return Place(folder, data, url, settings_from(os.environ))


def run_async(work: Coroutine[Any, Any, R], *, starts_processes: bool = True) -> R:
    """Runs a coroutine to its end; Ctrl-C aborts it.

    On uvloop where it is installed, unless the work starts processes: uvloop forks, and from a large process that takes
    many times as long as asyncio needs.
    """
    try:
        with asyncio.Runner(loop_factory=None if starts_processes else _uvloop()) as runner:
            return runner.run(work)
    except KeyboardInterrupt:
        raise click.Abort from None


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _json(ctx: click.Context, param: click.Parameter, value: bool | None) -> bool:
    return not on_terminal(sys.stdout) if value is None else value


json_option = click.option(
    "--json/--no-json",
    "as_json",
    default=None,
    callback=_json,
    help="Print JSON, or text for people. The default is text on a terminal and JSON anywhere else.",
)
cursor_option = click.option(
    "--cursor", type=click.IntRange(0, LAST), help="Go on where a list ended: it tells its cursor."
)
limit_option = click.option(
    "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many, newest first."
)


def on_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads what is written here."""
    return stream is not None and not stream.closed and stream.isatty()


def seconds(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """Checks an option that is a time span; click's own ranges let NaN pass."""
    if not 0 <= value <= 31_536_000:
        raise click.BadParameter(f"{value} is not a number of seconds from 0 to 31,536,000.", ctx, param)
    return value


def print_json(value: Any) -> None:
    """Pretty JSON and a newline; what could move a terminal's cursor is escaped, as JSON can."""
    click.echo(_safe(msgspec.json.format(msgspec.json.encode(value), indent=2)))


def print_json_line(value: Any) -> None:
    """The same on one line, at once."""
    click.echo(_safe(msgspec.json.encode(value)))


def _safe(text: bytes) -> str:
    return _MOVES.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode())


def tell_cursor(cursor: int | None) -> dict[str, str]:
    """What a list has beside its rows: {cursor} where it goes on."""
    return {} if cursor is None else {"cursor": str(cursor)}


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, cursor: int | None = None) -> None:
    """Columns as wide as they need to be; `empty` when there is nothing; on stderr, where the list goes on."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
    else:
        widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
        for number, row in enumerate([list(header), *cells]):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            click.secho(line, bold=number == 0)
    if cursor is not None:
        click.echo(f"there are more: --cursor {cursor}", err=True)


def print_notes(notes: Iterable[Note]) -> None:
    """Below a list, on stderr: what keeps its runs from moving, and what to do."""
    for note in notes:
        click.secho(clean(f"{note.runs} {'run' if note.runs == 1 else 'runs'}: {note.why}"), fg="yellow", err=True)


def clean(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def color_of(status: str) -> str:
    """The colour that goes with a status or result status."""
    good, bad = ("completed", "changed"), ("failed", "canceled", "blocked", "needs_intervention")
    return "green" if status in good else "red" if status in bad else "yellow"


def status_text(run: Run) -> str:
    """Status, and what a result or a hold adds to it."""
    more = [part for part in (run.result_status, run.hold and f"held: {run.hold}") if part and part != run.status]
    return f"{run.status} ({', '.join(more)})" if more else run.status


def read_file(path: str) -> bytes:
    """A file, or standard input for `-`."""
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", hint="Name a JSON file, or - for stdin.") from error


def need_event(reader: Reader, event_id: str) -> Event:
    """An event by its id; `Unknown` with a hint otherwise."""
    event = reader.event("main", event_id)
    if event is None:
        raise Unknown(f"no event {event_id!r}", hint="See `stepwell events list`.", event_id=event_id)
    return event


def need_run(reader: Reader, run_id: str) -> Run:
    """A run by its id; `Unknown` with a hint otherwise."""
    run = reader.run("main", run_id)
    if run is None:
        raise Unknown(f"no run {run_id!r}", hint="See `stepwell runs list`.", run_id=run_id)
    return run


def tags_of(given: tuple[str, ...]) -> dict[str, str]:
    """The tags that --tag gives, by name. Raises `Invalid` for one that is not NAME=TEXT."""
    pairs = [one.partition("=") for one in given]
    for name, is_one, _ in pairs:
        if not name or not is_one:
            raise Invalid(f"--tag cannot be {name!r:.80}", hint="Write --tag customer=c-7.", field="tag")
    return dict(sorted((name, text) for name, _, text in pairs))

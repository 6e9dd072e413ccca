"""`stepwell completion`: the script for tab completion, and what is completed from the data, where that is quick."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:  # every command imports this module, and seldom is anything completed
    from stepwell.cli.common import Place
    from stepwell.model.rows import Event, Run
    from stepwell.store.port import Reader

#: How many of the newest rows are offered.
OFFERED = 50
#: How long a server of PostgreSQL may take to be reached, and until it has answered, from the same moment.
CONNECT_S, ANSWER_S = 2, 2.0
#: Ids have colons, where bash would begin a new word; and spaces and quotes, which click's script does not quote.
_BASH_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"
_AS_IT_IS, _QUOTED = "COMPREPLY+=($value)", 'COMPREPLY+=("$(printf %q "$value")")'
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, for example: eval "$(stepwell completion bash)"."""
    from stepwell.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    source = found(cli, {}, "stepwell", "_STEPWELL_COMPLETE").source()
    click.echo(_BASH_WORDS + source.replace(_AS_IT_IS, _QUOTED) if shell == "bash" else source)


def _complete(look: Callable[[click.Context], Iterable[tuple[str, str]]]) -> Complete:
    """Completes from (value, help); whatever goes wrong, nothing is offered: a shell has no place for errors."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with contextlib.suppress(Exception):
            found = dict(look(ctx))
            return [CompletionItem(value, help=text) for value, text in found.items() if value.startswith(incomplete)]
        return []

    return complete


def _place(ctx: click.Context) -> "Place":
    from stepwell.cli.common import find_place

    return find_place(ctx.params.get("cwd"), ctx.params.get("data_dir"), ctx.params.get("db"))


@contextlib.contextmanager
def _reading(ctx: click.Context) -> "Iterator[Reader]":
    """The database, read without waiting long for anybody and without changing anything."""
    from stepwell.store.sqlite.reader import SqliteReader
    from stepwell.worker.local import open_store

    place = _place(ctx)
    if place.path is not None:
        db = sqlite3.connect(f"{place.path.as_uri()}?mode=ro", uri=True, timeout=0.2)
        with contextlib.closing(SqliteReader(db)) as reader:
            yield reader
        return
    store = open_store(f"{place.url}{'&' if '?' in place.url else '?'}connect_timeout={CONNECT_S}", place.settings)
    late = threading.Timer(ANSWER_S, store.cut)  # opening asks the server, too
    late.start()
    try:
        with contextlib.closing(store.reader()) as reader:
            yield reader
    finally:
        late.cancel()


def _read(look: "Callable[[Reader, str], Iterable[tuple[str, str]]]") -> Complete:
    """Completes from the database; `look` also hears the id of the run that the line names, or nothing."""

    def found(ctx: click.Context) -> Iterable[tuple[str, str]]:
        with _reading(ctx) as reader:
            return list(look(reader, ctx.params.get("run_id") or ""))

    return _complete(found)


def _flows(ctx: click.Context, steps: bool) -> Iterable[tuple[str, str]]:
    from stepwell.flows.discovery import discover

    for flow in discover(_place(ctx).cwd).flows:
        yield flow.name, flow.description or ""
        if steps:
            yield from ((f"{flow.name}/{step.name}", "") for step in flow.steps)


def _steps(ctx: click.Context) -> Iterable[tuple[str, str]]:
    from stepwell.flows.discovery import discover

    flows = {flow.name: flow for flow in discover(_place(ctx).cwd).flows}
    chosen = flows.get(ctx.params.get("flow_name") or "")
    return [(step.name, "") for step in chosen.steps] if chosen else []


def _runs(reader: "Reader", _: str) -> Iterable[tuple[str, str]]:
    return ((run.id, f"{run.name} {run.status}") for run in _newest(reader))


def _newest(reader: "Reader") -> "list[Run]":
    from stepwell.store.port import RunFilter

    return reader.list_runs(RunFilter(), limit=OFFERED).rows


def _newest_events(reader: "Reader") -> "list[Event]":
    return reader.list_events("main", limit=OFFERED).rows


def _workflows(reader: "Reader", _: str) -> Iterable[tuple[str, str]]:
    from stepwell.flows.package import APP_PREFIX
    from stepwell.flows.workflows import restored

    for flow in restored(reader.manifests("main"), APP_PREFIX):
        yield from ((step.name, flow.name) for step in flow.steps)


def _signals(reader: "Reader", run_id: str) -> Iterable[tuple[str, str]]:
    run = reader.run("main", run_id)
    for wait in json.loads(run.waits) if run is not None and run.waits else ():
        if wait.startswith("signal:"):
            yield wait.removeprefix("signal:"), ""


def _states(reader: "Reader", run_id: str) -> Iterable[tuple[str, str]]:
    run = reader.run("main", run_id)
    for entry in () if run is None else reader.entries(run.no):
        if entry.kind == "state.set":
            yield json.loads(entry.data)["name"], ""


complete_runs = _read(_runs)
complete_events = _read(lambda reader, _: [(one.id, one.type) for one in _newest_events(reader)])
complete_types = _read(lambda reader, _: [(one.type, "") for one in _newest_events(reader)])
complete_names = _read(lambda reader, _: [(run.name, "") for run in _newest(reader)])
complete_workflows = _read(_workflows)
complete_signals = _read(_signals)
complete_states = _read(_states)
complete_pools = _read(lambda reader, _: [(pool.name, "") for pool in reader.pools("main")[:OFFERED]])
complete_flows = _complete(lambda ctx: _flows(ctx, steps=False))
complete_flow_steps = _complete(lambda ctx: _flows(ctx, steps=True))
complete_steps = _complete(_steps)

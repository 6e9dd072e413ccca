"""`stepwell completion`: the script for tab completion, and what is completed from the data, where that is quick."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

#: How many of the newest rows are offered.
OFFERED = 50
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


def _place(ctx: click.Context) -> tuple[Path, Path | None]:
    """The folder of the flows, and the file of the database if it is there."""
    from stepwell.cli.common import find_place

    place = find_place(ctx.params.get("cwd"), ctx.params.get("data_dir"), ctx.params.get("db"))
    return place.cwd, place.path if place.path is not None and place.path.exists() else None


def _query(ctx: click.Context, statement: str, *values: str) -> list[tuple[str, str]]:
    """Rows of the database for `values` and a limit, read without waiting for anybody and without changing anything."""
    import sqlite3

    _, path = _place(ctx)
    if path is None:
        return []
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
        return [(str(value), str(text)) for value, text in db.execute(statement, (*values, OFFERED))]


def _flows(ctx: click.Context, steps: bool) -> Iterable[tuple[str, str]]:
    from stepwell.flows.discovery import discover

    for flow in discover(_place(ctx)[0]).flows:
        yield flow.name, flow.description or ""
        if steps:
            yield from ((f"{flow.name}/{step.name}", "") for step in flow.steps)


def _steps(ctx: click.Context) -> Iterable[tuple[str, str]]:
    from stepwell.flows.discovery import discover

    flows = {flow.name: flow for flow in discover(_place(ctx)[0]).flows}
    chosen = flows.get(ctx.params.get("flow_name") or "")
    return [(step.name, "") for step in chosen.steps] if chosen else []


complete_runs = _complete(lambda ctx: _query(ctx, "select id, name || ' ' || status from run order by no desc limit ?"))
complete_events = _complete(lambda ctx: _query(ctx, "select id, type from event order by no desc limit ?"))
complete_types = _complete(
    lambda ctx: _query(ctx, "select distinct type, '' from (select type from event order by no desc limit 20 * ?)")
)
complete_names = _complete(lambda ctx: _query(ctx, "select distinct name, '' from (select name from run limit ?)"))
complete_workflows = _complete(
    lambda ctx: _query(
        ctx,
        "select step.value ->> 'name', manifest.name from manifest, json_each(manifest.data, '$.steps') as step"
        " where manifest.name glob 'app:*' limit ?",
    )
)
complete_signals = _complete(
    lambda ctx: _query(
        ctx,
        "select substr(wait.value, 8), '' from run, json_each(run.waits) as wait"
        " where run.id = ? and wait.value glob 'signal:*' limit ?",
        ctx.params.get("run_id") or "",
    )
)
complete_states = _complete(
    lambda ctx: _query(
        ctx,
        "select distinct data ->> 'name', '' from entry where kind = 'state.set'"
        " and run_no = (select no from run where id = ?) limit ?",
        ctx.params.get("run_id") or "",
    )
)
complete_pools = _complete(lambda ctx: _query(ctx, "select name, '' from pool limit ?"))
complete_flows = _complete(lambda ctx: _flows(ctx, steps=False))
complete_flow_steps = _complete(lambda ctx: _flows(ctx, steps=True))
complete_steps = _complete(_steps)

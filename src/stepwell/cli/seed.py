"""The seed's programs, `codex-flow-systemd-local` and `codex-flow`: its verbs, on the same functions as our commands.

Source: spec codex-flows 4.8; its faults 7 (a dispatch that broke its run) and 36 (aliases without ids, flags without
`=`). Answers are the bodies of the HTTP server, as pretty JSON; errors the seed's words, with a hint of ours.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from msgspec import Struct

from stepwell.cli import seed_runner as runner
from stepwell.cli import seed_verbs as verbs
from stepwell.cli.common import ORIGINAL_DATA, clean, find_place
from stepwell.cli.main import finish
from stepwell.cli.options import setting_option
from stepwell.cli.seed_verbs import Asked
from stepwell.model.errors import Invalid

#: Options that say where and how, whatever the verb.
COMMON = ("cwd", "data_dir", "db", "host", "port", "secret", "executor", "bun", "flow_runner", "workspace_backend_url",
          "slots")  # fmt: skip


class Verb(Struct, frozen=True):
    """What a verb does, how it is written, the options it takes, and how many words come after it."""

    work: Callable[[Asked], None]
    usage: str
    options: tuple[str, ...] = ()
    words: int = 0


SERVE = Verb(verbs.serve, "serve")
DISPATCH = Verb(verbs.dispatch, "dispatch --event FILE [--wait]", ("event", "wait"))
LIST_EVENTS = Verb(verbs.list_events, "list-events [--type TYPE] [--limit N] [--cursor C]", ("type", "limit", "cursor"))
SHOW_EVENT = Verb(verbs.show_event, "show-event EVENT", ("event_id",), 1)
REPLAY = Verb(verbs.replay, "replay-event EVENT [--wait]", ("event_id", "wait"), 1)
LIST_RUNS = Verb(
    verbs.list_runs, "list-runs [--event-id EVENT] [--status STATUS] [--limit N] [--cursor C]",
    ("event_id", "status", "limit", "cursor"),
)  # fmt: skip
SHOW_RUN = Verb(verbs.show_run, "show-run RUN", ("run_id",), 1)

#: Both programs have these.
LONG = {
    "serve": SERVE, "dispatch": DISPATCH, "list-events": LIST_EVENTS, "show-event": SHOW_EVENT,
    "replay-event": REPLAY, "list-runs": LIST_RUNS, "show-run": SHOW_RUN,
}  # fmt: skip
SHORT = {"events": LIST_EVENTS, "event": SHOW_EVENT, "replay": REPLAY, "runs": LIST_RUNS}
BACKEND = {**LONG, **SHORT, "run": SHOW_RUN}
RUNNER = {
    **LONG, **SHORT,
    "list": Verb(runner.list_flows, "list"),
    "fire": Verb(runner.fire, "fire --event FILE", ("event",)),
    "run": Verb(runner.run_step, "run FLOW STEP --event FILE", ("event",), 2),
}  # fmt: skip

_OPTIONS = (
    setting_option("STEPWELL_CWD", type=click.Path(path_type=Path)),
    setting_option("STEPWELL_DATA_DIR", type=click.Path(path_type=Path)),
    setting_option("STEPWELL_DB"),
    setting_option("STEPWELL_HOST", default="127.0.0.1"),
    setting_option("STEPWELL_PORT", type=click.IntRange(0, 65535), default=7345),
    setting_option("STEPWELL_SLOTS", type=click.IntRange(0, 10_000), default=4),
    click.option("--secret"),
    click.option("--executor"),
    click.option("--bun"),
    click.option("--flow-runner"),
    click.option("--workspace-backend-url"),
    click.option("--event"),
    click.option("--wait", is_flag=True),
    click.option("--type"),
    click.option("--limit"),
    click.option("--cursor", type=click.IntRange(0, (1 << 63) - 1)),
    click.option("--event-id"),
    click.option("--run-id"),
    click.option("--status"),
    click.option("--help", "-h", is_flag=True),
)


def program(name: str, known: Mapping[str, Verb], usual: Callable[[Path], Path]) -> click.Command:
    """One command that takes every option anywhere: the verb is its first word. `usual` is the data folder by cwd."""

    def work(words: tuple[str, ...], **options: Any) -> None:
        if options.pop("help") or not words or words[0] == "help":
            click.echo(_help(name, known))
            return
        verb = known.get(words[0])
        if verb is None:
            raise Invalid(f"Unknown command: {words[0]}", hint=f"{name} help lists the commands.")
        _check(words[0], verb, words[1:], options)
        cwd = options.pop("cwd")
        place = find_place(
            cwd, options.pop("data_dir"), options.pop("db"), usual=str(usual((cwd or Path.cwd()).absolute()))
        )
        verb.work(Asked(place, words[1:], options))

    command = click.Command(name, callback=work, add_help_option=False)
    for option in (click.argument("words", nargs=-1), *_OPTIONS):
        command.params.append(_param(option))
    return command


def _param(option: Callable[[Any], Any]) -> click.Parameter:
    def holder() -> None: ...

    found: click.Parameter = option(holder).__click_params__[0]
    return found


def _check(word: str, verb: Verb, words: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Refuses options that the verb does not take, and words that it has no use for."""
    ctx = click.get_current_context()
    for name in options:
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in (*COMMON, *verb.options):
            raise Invalid(f"Unknown option: --{name.replace('_', '-')}", hint=f"Usage: {verb.usage}")
    if len(words) > verb.words:
        raise Invalid(f"Unknown option: {words[verb.words]}", hint=f"Usage: {verb.usage}")


def _help(name: str, known: Mapping[str, Verb]) -> str:
    lines = [f"Usage: {name} COMMAND [OPTIONS]", "", "Commands:"]
    for verb in dict.fromkeys(known.values()):
        also = [word for word, one in known.items() if one is verb and not verb.usage.startswith(word)]
        lines.append(f"  {verb.usage}" + (f"   (also: {', '.join(also)})" if also else ""))
    lines += [
        "  help",
        "",
        "Options of all: --cwd DIR --data-dir DIR --db FILE",
        "Options of those that run steps: --executor direct|systemd-run --bun PATH --slots N",
        "  --workspace-backend-url URL",
        "Options of serve: --host HOST --port PORT --secret SECRET (others on this machine see arguments: rather set",
        "STEPWELL_SECRET). --flow-runner is accepted and has no effect.",
        "The same and more is in `stepwell --help`.",
    ]
    return "\n".join(lines)


# ── the two programs ─────────────────────────────────────────────────────────────────────────────────────────────


def codex_flow_systemd_local() -> NoReturn:
    """The seed's backend. Its data is in CWD/.codex/flow-backend."""
    command = program("codex-flow-systemd-local", BACKEND, lambda cwd: cwd / ORIGINAL_DATA)
    finish(command, tell=_tell, misused=_misused)


def codex_flow() -> NoReturn:
    """The seed's runner, and the backend's verbs. Its data is where the backend's is, or in CWD/.stepwell."""

    def usual(cwd: Path) -> Path:
        return cwd / ORIGINAL_DATA if (cwd / ORIGINAL_DATA).is_dir() else cwd / ".stepwell"

    finish(program("codex-flow", RUNNER, usual), tell=_tell, misused=_misused)


def _tell(message: str, hint: str) -> int:
    click.echo(clean(message), err=True)
    if hint:
        click.echo(f"hint: {clean(hint)}", err=True)
    return 1


def _misused(wrong: click.ClickException) -> int:
    """Wrong usage in the seed's words."""
    if isinstance(wrong, click.NoSuchOption):
        return _tell(f"Unknown option: {wrong.option_name}", "See the command `help`.")
    if isinstance(wrong, click.BadOptionUsage):
        return _tell(f"{wrong.option_name} requires a value", "See the command `help`.")
    return _tell(wrong.format_message(), "See the command `help`.")


if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    programs = {"codex-flow": codex_flow, "codex-flow-systemd-local": codex_flow_systemd_local}
    if name not in programs:
        sys.exit(_tell(f"Unknown program: {name}", f"One of {', '.join(programs)}."))
    programs[name]()

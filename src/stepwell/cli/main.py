"""The entry point. Commands are imported when they are used, so that help and completion are quick."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

import click

from stepwell.model.errors import StepwellError

#: Command, where it is, and what it says of itself in the help of the whole.
COMMANDS = {
    "serve": ("stepwell.cli.serve:serve", "Run the server, with a worker in it."),
    "worker": ("stepwell.cli.serve:worker", "Run steps and workflows of a database, without a listener."),
    "start": ("stepwell.cli.start:start", "Start a run of a workflow."),
    "signal": ("stepwell.cli.signal:signal", "Send a run a signal that it waits for."),
    "flow": ("stepwell.cli.flow:flow", "List, check, make, fire and run flow packages."),
    "events": ("stepwell.cli.events:events", "List, show, dispatch and replay events."),
    "runs": ("stepwell.cli.runs:runs", "List, show, watch, cancel and retry runs."),
    "pools": ("stepwell.cli.pools:pools", "List, limit, pause and resume pools."),
    "doctor": ("stepwell.cli.doctor:doctor", "Check every law that the data can show."),
    "db": ("stepwell.cli.db:db", "Migrate, back up, restore, verify and copy databases."),
    "import": ("stepwell.cli.import_:import_", "Take over the history of codex-flow-systemd-local."),
    "smoke": ("stepwell.cli.smoke:smoke", "Check a server that runs, from outside."),
    "demo": ("stepwell.cli.demo:demo", "See it work, and survive a kill -9, in half a minute."),
    "completion": ("stepwell.cli.completion:completion", "Print the script for tab completion."),
}


class Lazy(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, on: bool) -> None:
    """Prints the version and ends."""
    if on:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"stepwell {version('stepwell')}")
        except PackageNotFoundError:
            click.echo("stepwell (run from its source, not installed)")
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """Durable flows: events come in, steps run as processes, every result survives every crash."""


def main() -> None:
    """Runs the command line. Exit codes: 0 well, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    finish(cli, tell=_tell, misused=_misused)


def finish(
    command: click.Command, *, tell: Callable[[str, str], int], misused: Callable[[click.ClickException], int]
) -> NoReturn:
    """Runs a program to its exit code. `tell` prints an error and its hint, `misused` what click says of the usage."""
    _open_streams()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    try:
        code = command.main(standalone_mode=False, color=False if plain else None)
    except click.ClickException as wrong:
        code = misused(wrong)
    except (click.Abort, KeyboardInterrupt):
        # A terminal's cursor stands behind ^C, and perhaps behind a line that says how things stand.
        click.echo("\ninterrupted" if sys.stderr.isatty() else "interrupted", err=True)
        code = 130
    except StepwellError as error:
        code = tell(error.message, error.hint)
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except UnicodeEncodeError:  # a lone surrogate is how Python hands over a byte that is no UTF-8
        code = tell("an argument is not valid UTF-8", "Ids, types and names are UTF-8; check the terminal's encoding.")
    except OSError as error:
        code = tell(str(error), "Check the disk, the permissions, and where the output goes.")
        with contextlib.suppress(OSError):
            sys.stdout.close()  # else the interpreter tries once more to write what could not be, and exits with 120
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the exit code stands; one more Ctrl-C would only break the farewell
    sys.exit(code if isinstance(code, int) else 0)


def _misused(wrong: click.ClickException) -> int:
    wrong.show()
    if isinstance(wrong, click.NoSuchOption):
        click.echo("An id or a file that begins with - comes after --, at the end.", err=True)
    return wrong.exit_code


def _tell(message: str, hint: str) -> int:
    from stepwell.cli.common import clean

    click.echo(f"error: {clean(message)}", err=True)
    if hint:
        click.echo(f"hint:  {clean(hint)}", err=True)
    return 1


def _open_streams() -> None:
    """Sees to it that 0, 1 and 2 are open: a closed one (`>&-`) would be given to the next file, say the database."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)

"""`stepwell completion`: the shell's script for tab completion."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, for example: eval "$(stepwell completion bash)"."""
    from stepwell.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    click.echo(found(cli, {}, "stepwell", "_STEPWELL_COMPLETE").source())

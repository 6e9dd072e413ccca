"""Commands that call functions from outside of any run."""

from msgspec import Struct

from stepwell.model.commands.base import Command


class Invoke(Command):
    """Runs mutation `function` in a transaction of its own. `request`: a repeat with the same one gets the answer.

    Errors: unknown_function, mutation_failed (with its error), conflict (same request, another call).
    """

    function: str
    args: str = "{}"
    scope: str = "main"
    by: str = ""
    request: str | None = None


class Invoked(Struct, gc=False):
    """`result` as JSON."""

    result: str

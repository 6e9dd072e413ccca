"""`runner = "command"`: an executable file of the package, or a program with arguments.

`script = "exec/do-work"` is a file with the executable bit. `command = ["git", "status"]` is a program on the PATH of
the worker; one with a slash (`["exec/tool", "--fast"]`) is relative to the package. No shell is involved.
"""

from collections.abc import Mapping

from stepwell.flows.package import Flow, Step, is_inside
from stepwell.flows.runners.base import OutputKind, Tools, leaves, script_path


class CommandRunner:
    """The program itself."""

    takes_command = True
    output_kind: OutputKind = "stdout"
    last_words = ""

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` for a missing program, `Invalid` for one that leaves the package."""
        if not step.command:
            return [script_path(flow, step)]
        program, *arguments = step.command
        if "/" in program:
            return [_packaged(flow, step, program), *arguments]
        return [tools.need(program, f"Install {program} on the worker, or correct its PATH."), *arguments]


def _packaged(flow: Flow, step: Step, program: str) -> str:
    path = flow.root / program
    if not step.allow_outside and not is_inside(flow.root, path):
        raise leaves(program)
    return str(path)

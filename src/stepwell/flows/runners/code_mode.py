"""`runner = "code-mode"`: a script run by Codex, by the program in `stepwell.flows.codemode` (source: spec 3.2)."""

import sys
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from stepwell.flows.codemode.command import ARGUMENTS, codex_words
from stepwell.flows.codemode.gate import check_gate
from stepwell.flows.codemode.output import FAILED
from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path
from stepwell.model.errors import Invalid

# -P: else a json.py of the package, which is the working directory, would be taken for the module.
_PYTHON = ("-P", "-m", "stepwell.flows.codemode")
_INSTALL = "Install it, or name another by CODEX_APP_SERVER_CODEX_COMMAND or the configured path of codex."


class CodeModeRunner:
    """`python -m stepwell.flows.codemode <script>`, with the app-server to start or, if flow.toml has one, to dial."""

    takes_command = False
    output_kind: OutputKind = "agent"
    last_words = FAILED

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. `Forbidden` when Code Mode is off, `Unavailable` without Codex."""
        check_gate(flow.name, step.name, environ)
        python = sys.executable or tools.need("python", "Configure the path of python.")
        program = [python, *_PYTHON, script_path(flow, step)]
        if step.app_server is not None:
            return [*program, "--remote", step.app_server]
        return [*program, "--", *_codex(tools, environ), *ARGUMENTS]


def _codex(tools: Tools, environ: Mapping[str, str]) -> list[str]:
    """Codex, by the step's own PATH and settings alone: those of the worker do not count (fault 15)."""
    home = environ.get("CODEX_HOME", "")
    if home and not Path(home).is_absolute():
        hint = "A step has another working directory than the worker: give the whole path."
        raise Invalid("CODEX_HOME is not an absolute path", hint=hint)
    here = replace(tools, search_path=environ.get("PATH"))
    if "codex" in tools.configured:
        return [here.need("codex", "Correct the configured path of codex.")]
    program, *arguments = codex_words(environ, lambda text: here.find(text) is not None)
    return [here.need(program, _INSTALL), *arguments]

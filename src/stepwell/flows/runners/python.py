"""`runner = "python"`: the script, run by the worker's own interpreter or a configured one."""

import sys
from collections.abc import Mapping

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path
from stepwell.flows.runners.modules import LAUNCHER_PYTHON


class PythonRunner:
    """`python -u <script>`: unbuffered, so that what it prints is seen while it runs.

    With `module = true`, a launcher calls its function `flow`.
    """

    takes_command = False
    output_kind: OutputKind = "stdout"
    last_words = ""

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when the configured interpreter is not there."""
        python = sys.executable
        if "python" in tools.configured or not python:
            python = tools.need("python", "Correct the configured path of python.")
        script = script_path(flow, step)
        return [python, "-u", str(LAUNCHER_PYTHON), script] if step.module else [python, "-u", script]

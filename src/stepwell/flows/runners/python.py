"""`runner = "python"`: the script, run by the worker's own interpreter or a configured one."""

import sys
from collections.abc import Mapping

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path


class PythonRunner:
    """`python -u <script>`: unbuffered, so that what it prints is seen while it runs."""

    takes_command = False
    output_kind: OutputKind = "stdout"

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when the configured interpreter is not there."""
        python = sys.executable
        if "python" in tools.configured or not python:
            python = tools.need("python", "Correct the configured path of python.")
        return [python, "-u", script_path(flow, step)]

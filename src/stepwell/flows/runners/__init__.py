"""The runners by the name that `runner = ` gives. Another one is a file here and a line below.

The runner `workflow` is none of them: a step of it is no program, its run is one of a workflow.
"""

from stepwell.flows.package import WORKFLOW
from stepwell.flows.runners.base import Runner
from stepwell.flows.runners.bun import BunRunner
from stepwell.flows.runners.code_mode import CodeModeRunner
from stepwell.flows.runners.command import CommandRunner
from stepwell.flows.runners.node import NodeRunner
from stepwell.flows.runners.python import PythonRunner

RUNNERS: dict[str, Runner] = {
    "bun": BunRunner(),
    "code-mode": CodeModeRunner(),
    "command": CommandRunner(),
    "node": NodeRunner(),
    "python": PythonRunner(),
}

#: Everything that a manifest may name.
RUNNER_NAMES = tuple(sorted((*RUNNERS, WORKFLOW)))

"""`runner = "node"`: the script as it is, run by Node.js, or the handler that it exports.

Source: the seed, whose later name for its deterministic runner this is.
"""

from collections.abc import Mapping

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path
from stepwell.flows.runners.modules import LAUNCHER_JS


class NodeRunner:
    """`node <script>`; with `module = true`, `node <launcher> <script>`."""

    takes_command = False
    output_kind: OutputKind = "stdout"
    last_words = ""

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when there is no node."""
        node = tools.need("node", "Install Node.js 20 or newer, or configure the path of node.")
        script = script_path(flow, step)
        return [node, str(LAUNCHER_JS), script] if step.module else [node, script]

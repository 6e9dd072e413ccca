"""`runner = "node"`: the script as it is, run by Node.js (source: seed, the later name of the deterministic runner)."""

from collections.abc import Mapping

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path


class NodeRunner:
    """`node <script>`."""

    takes_command = False
    output_kind: OutputKind = "stdout"

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when there is no node."""
        node = tools.need("node", "Install Node.js 20 or newer, or configure the path of node.")
        return [node, script_path(flow, step)]

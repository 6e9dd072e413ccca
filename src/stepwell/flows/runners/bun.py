"""`runner = "bun"`: the script as it is, run by Bun (source: seed, Runners)."""

from collections.abc import Mapping

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path


class BunRunner:
    """`bun <script>`."""

    takes_command = False
    output_kind: OutputKind = "stdout"

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when there is no bun."""
        bun = tools.need("bun", "Install it with `npm install bun`, or configure the path of bun.")
        return [bun, script_path(flow, step)]

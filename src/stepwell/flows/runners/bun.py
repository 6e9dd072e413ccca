"""`runner = "bun"`: the script as it is, run by Bun, or the handler that it exports (source: seed, Runners)."""

from collections.abc import Mapping
from pathlib import Path

from stepwell.flows.package import Flow, Step
from stepwell.flows.runners.base import OutputKind, Tools, script_path
from stepwell.flows.runners.modules import LAUNCHER_JS, BunModules


class BunRunner:
    """`bun <script>`; for a module, `bun <launcher> <script>`."""

    takes_command = False
    output_kind: OutputKind = "stdout"
    last_words = ""

    def __init__(self) -> None:
        self._modules = BunModules()

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The command line. Raises `Unavailable` when there is no bun."""
        bun = tools.need("bun", "Install it with `npm install bun`, or configure the path of bun.")
        script, module = script_path(flow, step), step.module
        if module is None:
            module = self._modules.is_module(Path(script), bun, environ)
        return [bun, str(LAUNCHER_JS), script] if module else [bun, script]

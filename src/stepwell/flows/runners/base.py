"""What a runner is, and how it finds its tool."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct, field

from stepwell.flows.package import Flow, Step, is_inside
from stepwell.model.errors import Invalid, Unavailable

OutputKind = Literal["stdout", "agent"]


class Tools(Struct, frozen=True):
    """Where programs are: `configured` paths by name first, then `node_modules/.bin` of `dirs`, then `search_path`.

    `search_path` has the form of `PATH`; None means that nothing is searched there.
    """

    configured: Mapping[str, str] = field(default_factory=dict)
    dirs: tuple[Path, ...] = ()
    search_path: str | None = None

    def find(self, name: str) -> str | None:
        """The absolute path of a program (a step's working directory is another than ours), or None."""
        if name in self.configured:
            found = shutil.which(self.configured[name], path=self.search_path or "")
        else:
            places = [str(directory / "node_modules" / ".bin") for directory in self.dirs]
            places += [self.search_path] if self.search_path else []
            found = shutil.which(name, path=os.pathsep.join(places))
        return None if found is None else str(Path(found).absolute())

    def need(self, name: str, hint: str) -> str:
        """The path of a program. Raises `Unavailable` with `hint`, which says how to install it."""
        found = self.find(name)
        if found is None:
            raise Unavailable(f"the program {name} was not found", hint=hint, tool=name)
        return found


class Runner(Protocol):
    """Turns a step into a command line."""

    @property
    def takes_command(self) -> bool:
        """Whether it runs `script` or `command` itself, without an interpreter."""
        ...

    @property
    def output_kind(self) -> OutputKind:
        """As what its stdout is kept: `agent` when that is what a model says. The result is looked for in either."""
        ...

    @property
    def last_words(self) -> str:
        """What begins the line on stderr that says why it failed, when a program of ours runs the step; else empty."""
        ...

    def argv(self, flow: Flow, step: Step, tools: Tools, environ: Mapping[str, str]) -> list[str]:
        """The program and its arguments. `environ` is the environment that the step will have.

        Is called in a thread: it may read files, and start a short probe. Raises `Unavailable` when a tool is missing.
        """
        ...


def script_path(flow: Flow, step: Step) -> str:
    """The absolute path of a step's script. Raises `Invalid` when it went, or leaves the package, after the load."""
    path = flow.root / (step.script or "")
    if not step.allow_outside and not is_inside(flow.root, path):
        raise leaves(step.script or "")
    if not path.is_file():
        raise Invalid(f"the script {path} is not there", hint="Put it back, or correct `script` in flow.toml.")
    return str(path)


def leaves(path: str) -> Invalid:
    """The refusal of a path that leads out of its package."""
    hint = "Keep it in the package, or set allow_outside = true on the step."
    return Invalid(f"{path} leaves the package", hint=hint)

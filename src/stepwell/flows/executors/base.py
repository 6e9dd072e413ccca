"""What an executor is: it says what is really started for a step, and how that is ended (source: spec 4.5)."""

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from stepwell.flows.runners.base import Tools

SCRIPT_HINT = "Check the script's #! line, its permissions and the step's cwd."


class Job(Struct, frozen=True):
    """A step's process as its runner wants it, and whose it is."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    run_id: str
    attempt_id: str
    timeout_ms: int
    kill_grace_ms: int


class Fault(NamedTuple):
    """Why the step itself was never reached, and what to do about it."""

    message: str
    hint: str


class Launch(Struct, frozen=True):
    """What is started in its place.

    `stop`, if there is one, ends the step instead of a signal to the process group; bounded, it can be called again.
    `fault` is asked when the process has ended, with the end of what it said on stderr.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    stop: Callable[[], Awaitable[None]] | None = None
    fault: Callable[[str], Fault | None] = lambda stderr: None


class Executor(Protocol):
    """A way to start a step's process."""

    def place(self, environ: Mapping[str, str]) -> Path:
        """A folder for small files that whoever starts the process sees as well."""
        ...

    def launch(self, job: Job, tools: Tools, environ: Mapping[str, str]) -> AbstractContextManager[Launch]:
        """Prepare it; what that needs is there until the context ends. `environ` is the worker's own environment.

        Raises `Unavailable` when a tool is missing.
        """
        ...


def temporary_place() -> Path:
    """Where this machine keeps small files. If nothing can be written, whoever tries is told so."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path.cwd()

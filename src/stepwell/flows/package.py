"""What a flow package says, as frozen structs (source: seed codex-flows, `flow.toml`)."""

from pathlib import Path
from typing import Any

from msgspec import Struct, field

DEFAULT_TIMEOUT_MS = 300_000
MAX_TIMEOUT_MS = 86_400_000
DEFAULT_POOL = "default"
#: The runner of a step that is a workflow of an app: its run is the workflow's, no program is started.
WORKFLOW = "workflow"
#: Begins the names of the flows that hold the workflows of an app; no package may be named so.
APP_PREFIX = "app:"


class Trigger(Struct, frozen=True):
    """Which events start a step: an exact type, and a JSON Schema file (relative to the package) for the payload."""

    type: str
    schema: str | None = None


class RetrySpec(Struct, frozen=True):
    """How often a step is tried, and how long to wait in between (milliseconds, growing by `factor` up to `max_ms`)."""

    max_attempts: int
    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 60_000


class Concurrency(Struct, frozen=True):
    """At most `limit` runs at once per value found at the JSON pointer `key` in the event's wire form.

    `key = "/payload/repo"` limits per repository; `key = "/type"` limits the step as a whole.
    """

    key: str
    limit: int


class Step(Struct, frozen=True):
    """One step. `script`, `cwd` and the trigger's `schema` are paths as written, relative to the package's root.

    `module`: whether the script exports a handler that is called; None leaves it to the runner to find out.
    `app_server`: the ws:// URL of a running Codex app-server, in place of one that is started.
    `workflow`: what the runner `workflow` starts, by its name in its app; `workflow_version`: None is the newest.
    `deadline_ms` is of the workflow, from its app.
    """

    name: str
    runner: str
    script: str | None = None
    command: tuple[str, ...] = ()
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    cwd: str | None = None
    trigger: Trigger | None = None
    retry: RetrySpec | None = None
    concurrency: Concurrency | None = None
    env: tuple[str, ...] = ()
    pool: str = DEFAULT_POOL
    priority: int = 0
    enabled: bool = True
    allow_outside: bool = False
    module: bool | None = None
    app_server: str | None = None
    workflow: str | None = None
    workflow_version: str | None = None
    deadline_ms: int | None = None


class Flow(Struct, frozen=True):
    """A loaded package. `root` and `manifest_path` are absolute; `config` is JSON (TOML dates became ISO texts)."""

    root: Path
    manifest_path: Path
    name: str
    version: int | float
    description: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    def step(self, name: str) -> Step | None:
        """The step of this name, or None."""
        return next((step for step in self.steps if step.name == name), None)


def is_inside(root: Path, path: Path) -> bool:
    """Whether `path`, with every symbolic link followed, lies in `root`. A loop of links leads nowhere."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False

"""Settings of the program that runs steps, as opposed to those of the kernel (source: spec codex-flows 4.1)."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from msgspec import Struct, field

from stepwell.flows.wsurl import ws_url_fault
from stepwell.model.errors import Invalid

ExecutorName = Literal["direct", "systemd-run"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)
MAX_ENV = 128
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class FlowOptions(Struct, frozen=True):
    """How steps are run here.

    `executor`: how a step's process is started. `forward_env`: the variables that every step gets, if the worker has
    them, instead of the default list; None is the default list. `tools`: paths of programs by name (bun, node, python,
    codex). `workspace_url`: the ws:// address of a workspace backend, told to steps. Raises `Invalid` with `option`.
    """

    executor: ExecutorName = "direct"
    forward_env: tuple[str, ...] | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    workspace_url: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise _refused("executor", f"must be {' or '.join(EXECUTORS)}", "Use direct unless the steps need units.")
        _check_names(self.forward_env or ())
        for name, path in self.tools.items():
            if not path.strip() or "\0" in path:
                raise _refused("tools", f"has no usable path for {name}", f"Give the path of {name}, or nothing.")
        fault = "" if self.workspace_url is None else ws_url_fault(self.workspace_url)
        if fault:
            raise _refused("workspace_url", fault, "Give the address of the workspace backend, or nothing.")


def is_env_name(text: str) -> bool:
    """Whether an environment variable can have this name."""
    return _ENV_NAME.match(text) is not None


def _check_names(names: tuple[str, ...]) -> None:
    if len(names) > MAX_ENV:
        raise _refused("forward_env", f"has more than {MAX_ENV} names", "Forward only what steps need.")
    for name in names:
        if not is_env_name(name):
            # It is not shown, since somebody may have written NAME=secret.
            reason = "has a member that is not the name of a variable"
            raise _refused("forward_env", reason, "List names only, with commas; the values come from the worker.")


def _refused(option: str, reason: str, hint: str) -> Invalid:
    return Invalid(f"{option} {reason}", hint=hint, option=option)

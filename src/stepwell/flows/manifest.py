"""Loading `flow.toml` (source: seed codex-flows; every key of it, and ours in addition).

A manifest that this module accepts can be run: its keys are known, its scripts exist, its paths stay in the package.
Shapes are in `stepwell.flows.package` and may be imported from here.
"""

import datetime
import tomllib
from pathlib import Path
from typing import Any

from stepwell.flows.jsonvalue import Bounds, check_json
from stepwell.flows.package import APP_PREFIX, Concurrency, Flow, RetrySpec, Step, Trigger, is_inside
from stepwell.flows.stepdef import read_step
from stepwell.flows.tables import Problems, Table, plain
from stepwell.model.errors import Invalid, StepwellError

__all__ = ["MANIFEST", "Concurrency", "Flow", "RetrySpec", "Step", "Trigger", "load_flow"]

MANIFEST = "flow.toml"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_DESCRIPTION_BYTES = 4_096
MAX_STEPS = 100
MAX_VERSION = 2**53


def load_flow(path: Path) -> Flow:
    """Load a package from its directory or from its `flow.toml`.

    Raises `Invalid` with the fields `path` and `problems` (every reason, each beginning with its key).
    """
    manifest_path = (path / MANIFEST if path.is_dir() else path).absolute()
    problems = Problems()
    top = Table(_read(manifest_path), "", problems)
    flow = _flow(top, manifest_path)
    top.close()
    if flow is None or problems.reasons:
        raise _refused(manifest_path, problems.reasons, problems.hint)
    return flow


def _refused(path: Path, reasons: list[str], hint: str = "") -> Invalid:
    text = "; ".join(reasons)
    return Invalid(f"{path}: {text}", hint=hint or f"Correct {path}.", path=str(path), problems=reasons)


def _read(path: Path) -> dict[str, Any]:
    try:
        if not is_inside(path.parent, path):
            raise _refused(path, ["is a symbolic link that leaves the package"], "Put the file itself there.")
        if not path.is_file():  # a pipe or a device would block every dispatch
            raise _refused(path, ["is not a file"])
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise _refused(path, [f"is larger than {MAX_MANIFEST_BYTES} bytes"])
        return tomllib.loads(data.decode())
    except OSError as error:
        raise _refused(
            path, [f"cannot be read: {error.strerror}"], "Check that the file exists and is readable."
        ) from None
    except (ValueError, RecursionError) as error:
        raise _refused(
            path, [f"is not TOML: {error}"], "Correct the TOML at the place that the message names."
        ) from None


def _flow(top: Table, manifest_path: Path) -> Flow | None:
    root = manifest_path.parent
    name = _name(top)
    version = top.number("version", -MAX_VERSION, MAX_VERSION, required=True)
    description = top.text("description", MAX_DESCRIPTION_BYTES)
    config, guidance = _config(top), _guidance(top)
    steps = [read_step(table, root) for table in top.tables("steps", MAX_STEPS)]
    _check_unique(top, steps)
    if name is None or version is None:
        return None
    good = tuple(step for step in steps if step is not None)
    return Flow(root, manifest_path, name, version, description, config, guidance, good)


def _name(top: Table) -> str | None:
    """The name of the flow. A run is called FLOW/STEP, which is read up to the first slash."""
    name = top.name("name", required=True)
    if name is not None and "/" in name:
        top.add("name", f"{name!r} has a slash", "Use another sign: runs and commands name a step as FLOW/STEP.")
    elif name is not None and name.startswith(APP_PREFIX):
        top.add("name", f"{name!r} begins as the workflows of an app are named", f"Leave out {APP_PREFIX!r}.")
    return name


def _config(top: Table) -> dict[str, Any]:
    config: dict[str, Any] = {}
    try:
        config = plain(top.raw("config") or {}, _plain_leaf)
        check_json(config, what="config", bounds=Bounds())
    except StepwellError as error:
        top.add("config", error.message, error.hint)
    except RecursionError:
        top.add("config", "is nested too deeply", "Use fewer levels.")
    return config


def _plain_leaf(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def _guidance(top: Table) -> dict[str, Any]:
    table = top.table("guidance")
    if table is None:
        return {}
    skills = table.names("skills")
    table.close()
    return {} if skills is None else {"skills": list(skills)}


def _check_unique(top: Table, steps: list[Step | None]) -> None:
    seen: set[str] = set()
    for step in steps:
        if step is not None and step.name in seen:
            top.add("steps", f"two steps are named {step.name!r}", "Give each step of a flow a name of its own.")
        if step is not None:
            seen.add(step.name)

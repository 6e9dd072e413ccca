"""Loading `flow.toml` (source: seed codex-flows; every key of it, and ours in addition).

A manifest that this module accepts can be run: its keys are known, its scripts exist, its paths stay in the package.
Shapes are in `stepwell.flows.package` and may be imported from here.
"""

import datetime
import os
import tomllib
from pathlib import Path
from typing import Any

from stepwell.flows.jsonvalue import Bounds, check_json
from stepwell.flows.options import MAX_ENV, is_env_name
from stepwell.flows.package import (
    DEFAULT_POOL,
    DEFAULT_TIMEOUT_MS,
    MAX_TIMEOUT_MS,
    Concurrency,
    Flow,
    RetrySpec,
    Step,
    Trigger,
    is_inside,
)
from stepwell.flows.pointer import pointer_fault
from stepwell.flows.runners import RUNNERS
from stepwell.flows.tables import Problems, Table, plain
from stepwell.model.errors import Invalid, StepwellError

__all__ = ["MANIFEST", "Concurrency", "Flow", "RetrySpec", "Step", "Trigger", "load_flow"]

MANIFEST = "flow.toml"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_DESCRIPTION_BYTES = 4_096
MAX_PATH_BYTES = 4_096
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
    name = top.name("name", required=True)
    version = top.number("version", -MAX_VERSION, MAX_VERSION, required=True)
    description = top.text("description", MAX_DESCRIPTION_BYTES)
    config, guidance = _config(top), _guidance(top)
    steps = [_step(table, root) for table in top.tables("steps", MAX_STEPS)]
    _check_unique(top, steps)
    if name is None or version is None:
        return None
    good = tuple(step for step in steps if step is not None)
    return Flow(root, manifest_path, name, version, description, config, guidance, good)


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


def _step(table: Table, root: Path) -> Step | None:
    name = table.name("name", required=True)
    runner = _runner(table)
    outside = table.flag("allow_outside", False)
    script = _path(table, "script", root, outside)
    command = table.names("command")
    timeout_ms = table.integer("timeout_ms", 1, MAX_TIMEOUT_MS)
    cwd = _path(table, "cwd", root, outside)
    trigger = _trigger(table, root, outside)
    retry, concurrency, env = _retry(table), _concurrency(table), _env(table)
    pool, priority = table.name("pool"), table.integer("priority", -32_768, 32_767)
    enabled = table.flag("enabled", True)
    table.close()
    _check_start(table, runner, script, command, root)
    if name is None or runner is None:
        return None
    return Step(
        name=name,
        runner=runner,
        script=script,
        command=command or (),
        timeout_ms=DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms,
        cwd=cwd,
        trigger=trigger,
        retry=retry,
        concurrency=concurrency,
        env=env,
        pool=pool or DEFAULT_POOL,
        priority=priority or 0,
        enabled=enabled,
        allow_outside=outside,
    )


def _runner(table: Table) -> str | None:
    runner = table.name("runner", required=True)
    if runner is not None and runner not in RUNNERS:
        known = ", ".join(sorted(RUNNERS))
        table.add("runner", f"{runner!r} is not one of {known}", f"Use one of the runners {known}.")
        return None
    return runner


def _path(table: Table, key: str, root: Path, outside: bool) -> str | None:
    """A path as written, after a check that it stays in the package."""
    value = table.name(key, max_bytes=MAX_PATH_BYTES)
    if value is None:
        return None
    if not outside and not _stays(root, value):
        table.add(
            key, f"{value!r} leaves the package", "Keep it in the package, or set allow_outside = true on the step."
        )
        return None
    return value


def _stays(root: Path, value: str) -> bool:
    try:
        return is_inside(root, root / value)
    except (OSError, RuntimeError):  # a loop of symbolic links leads nowhere
        return False


def _check_start(
    table: Table, runner: str | None, script: str | None, command: tuple[str, ...] | None, root: Path
) -> None:
    """A step says what to start: a script that exists or, for the command runner, a command in its place."""
    given = table.has("script") + table.has("command")
    if runner is not None and table.has("command") and not RUNNERS[runner].takes_command:
        table.add("command", f"the runner {runner!r} takes a script", 'Use `script`, or `runner = "command"`.')
    elif given == 0:
        table.add("script", "is required", 'Name the file to run, as in script = "exec/do-work.py".')
    elif given == 2:
        table.add("command", "a step has either a script or a command", "Remove one of them.")
    elif command == ():
        table.add("command", "must name a program")
    if script is not None and runner is not None:
        _check_script(table, root / script, executable=RUNNERS[runner].takes_command)


def _check_script(table: Table, path: Path, *, executable: bool) -> None:
    if not path.is_file():
        table.add("script", f"{path} is not a file", "Create the script, or correct its path.")
    elif executable and not os.access(path, os.X_OK):
        table.add("script", f"{path} is not executable", f"Run chmod +x {path}, and begin it with a #! line.")


def _trigger(step: Table, root: Path, outside: bool) -> Trigger | None:
    table = step.table("trigger")
    if table is None:
        return None
    type_ = table.name("type", required=True)
    schema = _path(table, "schema", root, outside)
    table.close()
    return None if type_ is None else Trigger(type_, schema)


def _retry(step: Table) -> RetrySpec | None:
    table = step.table("retry")
    if table is None:
        return None
    attempts = table.integer("max_attempts", 1, 1_000, required=True)
    first, last = table.integer("initial_ms", 0, MAX_TIMEOUT_MS), table.integer("max_ms", 0, MAX_TIMEOUT_MS)
    factor = table.number("factor", 1, 100)
    table.close()
    if attempts is None:
        return None
    base = RetrySpec(attempts)
    initial_ms = base.initial_ms if first is None else first
    max_ms = max(base.max_ms, initial_ms) if last is None else last
    if max_ms < initial_ms:
        table.add("max_ms", "must not be less than initial_ms")
    return RetrySpec(attempts, initial_ms, base.factor if factor is None else float(factor), max_ms)


def _concurrency(step: Table) -> Concurrency | None:
    table = step.table("concurrency")
    if table is None:
        return None
    key, limit = table.name("key", required=True), table.integer("limit", 1, 100_000, required=True)
    table.close()
    fault = "" if key is None else pointer_fault(key)
    if fault:
        table.add("key", fault, 'Use a JSON pointer into the event, as in key = "/payload/repo".')
    return None if key is None or limit is None else Concurrency(key, limit)


def _env(table: Table) -> tuple[str, ...]:
    names = table.names("env") or ()
    for name in names[:MAX_ENV]:
        if not is_env_name(name):
            table.add(
                "env", f"{name!r:.80} is not the name of a variable", "List names only; values come from the worker."
            )
    if len(names) > MAX_ENV:
        table.add("env", f"has more than {MAX_ENV} names")
    return names

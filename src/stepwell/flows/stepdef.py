"""Reading one `[[steps]]` table of a `flow.toml` (source: seed codex-flows; every key of it, and ours in addition)."""

import os
from pathlib import Path

from stepwell.flows.options import MAX_ENV, is_env_name
from stepwell.flows.package import (
    DEFAULT_POOL,
    DEFAULT_TIMEOUT_MS,
    MAX_TIMEOUT_MS,
    WORKFLOW,
    Concurrency,
    RetrySpec,
    Step,
    Trigger,
    is_inside,
)
from stepwell.flows.pointer import pointer_fault
from stepwell.flows.runners import RUNNER_NAMES, RUNNERS
from stepwell.flows.tables import Table
from stepwell.flows.wsurl import MAX_URL_BYTES, ws_url_fault

MAX_PATH_BYTES = 4_096
CODE_MODE = "code-mode"
#: The runners that can call a handler which the script exports.
MODULE_RUNNERS = ("bun", "node", "python")
_CODE = "Remove it: the code of a workflow is in its app."
#: The keys that make no sense for a workflow, and what does in their place.
NOT_OF_WORKFLOWS = {
    "script": _CODE,
    "command": _CODE,
    "module": _CODE,
    "cwd": "Remove it: a workflow has no working directory; what it needs comes with the event.",
    "env": "Remove it: a workflow reads no variables; its actions have those of their worker.",
    "app_server": "Remove it: a workflow is not run by Codex.",
    "timeout_ms": "Remove it: set the deadline in the app, as in @app.workflow(deadline=3600).",
    "retry": "Remove it: set retry on the steps and actions of the workflow, it is itself never begun again.",
}


def read_step(table: Table, root: Path) -> Step | None:
    """One step out of its table, for a package at `root`. None after a problem, which the table has noted."""
    name = table.name("name", required=True)
    runner = _runner(table)
    outside = table.flag("allow_outside", False)
    script = _path(table, "script", root, outside)
    command = table.names("command")
    timeout_ms = table.integer("timeout_ms", 1, MAX_TIMEOUT_MS)
    cwd = _path(table, "cwd", root, outside)
    trigger = _trigger(table, root, outside)
    retry, concurrency, env = _retry(table), _concurrency(table), _env(table)
    pool, priority = _pool(table), table.integer("priority", -32_768, 32_767)
    enabled = table.flag("enabled", True)
    module, app_server = _module(table, runner), _app_server(table, runner)
    workflow, version = _workflow(table, runner)
    table.close()
    if runner != WORKFLOW:
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
        module=module,
        app_server=app_server,
        workflow=workflow,
        workflow_version=version,
    )


def _runner(table: Table) -> str | None:
    runner = table.name("runner", required=True)
    if runner is not None and runner not in RUNNER_NAMES:
        known = ", ".join(RUNNER_NAMES)
        table.add("runner", f"{runner!r} is not one of {known}", f"Use one of the runners {known}.")
        return None
    return runner


def _pool(table: Table) -> str | None:
    if table.has("concurrency") and table.has("pool"):
        reason = "a step with a concurrency has a pool of its own, since the limit is the step's"
        table.add("pool", reason, "Remove `pool`, or `concurrency`.")
    return table.name("pool")


def _module(table: Table, runner: str | None) -> bool | None:
    """Whether the script is a module that is called; None when the key is absent."""
    if not table.has("module"):
        table.flag("module", False)  # it is a known key all the same
        return None
    if runner not in (None, WORKFLOW, *MODULE_RUNNERS):
        table.add("module", f"the runner {runner!r} has no modules", f"Use one of {', '.join(MODULE_RUNNERS)}.")
    return table.flag("module", False)


def _app_server(table: Table, runner: str | None) -> str | None:
    url = table.name("app_server", max_bytes=MAX_URL_BYTES)
    fault = "" if url is None else ws_url_fault(url)
    if fault:
        table.add("app_server", fault, "Give the address of a running app-server.")
    if url is not None and runner not in (None, WORKFLOW, CODE_MODE):
        table.add("app_server", f"the runner {runner!r} uses no app-server", "Remove it.")
    return url


def _workflow(table: Table, runner: str | None) -> tuple[str | None, str | None]:
    """The workflow that the step is, and its version. What is of programs is refused for it, and vice versa."""
    name, version = table.name("workflow"), table.name("workflow_version")
    if runner == WORKFLOW:
        if not table.has("workflow"):
            table.add("workflow", "is required", 'Name it as in its app: workflow = "shop:checkout".')
        for key, hint in NOT_OF_WORKFLOWS.items():
            if table.has(key):
                table.add(key, f"the runner {WORKFLOW!r} has no {key}", hint)
    elif runner is not None:
        for key in ("workflow", "workflow_version"):
            if table.has(key):
                table.add(key, f"the runner {runner!r} starts no workflow", 'Use runner = "workflow", or remove it.')
    return name, version


def _path(table: Table, key: str, root: Path, outside: bool) -> str | None:
    """A path as written, after a check that it stays in the package."""
    value = table.name(key, max_bytes=MAX_PATH_BYTES)
    if value is None:
        return None
    if not outside and not is_inside(root, root / value):
        table.add(
            key, f"{value!r} leaves the package", "Keep it in the package, or set allow_outside = true on the step."
        )
        return None
    return value


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

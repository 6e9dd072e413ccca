"""`stepwell flow check`: everything that is wrong, odd or worth knowing about packages, for people and for CI."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import click
import msgspec
from msgspec import Struct

from stepwell.cli.app import app_option, load_app
from stepwell.cli.common import Place, clean, json_option, print_json, with_place
from stepwell.cli.given import flow_options
from stepwell.flows.discovery import ROOTS, Discovery, Problem, discover
from stepwell.flows.manifest import MANIFEST, load_flow
from stepwell.flows.package import Flow, Step
from stepwell.flows.runners import RUNNERS
from stepwell.flows.runners.base import Tools
from stepwell.flows.schemas import Schemas
from stepwell.flows.workflows import AppWorkflows
from stepwell.model.errors import Invalid, StepwellError

Severity = Literal["error", "warning", "note"]
_COLORS = {"error": "red", "warning": "yellow", "note": "blue"}


class Diagnostic(Struct, frozen=True):
    """One finding: in which file, at which key (may be empty), why, and what to do."""

    severity: Severity
    file: str
    key: str
    reason: str
    hint: str


class Found(Struct, frozen=True):
    """What a check looked at."""

    flows: int
    steps: int
    diagnostics: tuple[Diagnostic, ...]

    def count(self, severity: Severity) -> int:
        """How many of a kind."""
        return sum(one.severity == severity for one in self.diagnostics)


@click.command()
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@json_option
@app_option
@with_place
def check(place: Place, folders: tuple[Path, ...], strict: bool, as_json: bool, app: str | None) -> None:
    """Check packages. A DIR is a package, a folder of packages, or one that holds flows/ or .codex/flows/.

    With --app, the workflows that steps name have to be in it.

    Exit code 1 if there is an error, or with --strict a warning.
    """
    found = check_folders(folders or (place.cwd,), _tools(place), _workflows(place, app))
    bad = found.count("error") + (found.count("warning") if strict else 0)
    if as_json:
        counts = {"flows": found.flows, "steps": found.steps, "errors": found.count("error")}
        counts["warnings"] = found.count("warning")
        print_json({"ok": not bad, **counts, "diagnostics": msgspec.to_builtins(found.diagnostics)})
    else:
        _print(found)
    if bad:
        raise click.exceptions.Exit(1)


def _tools(place: Place) -> Tools:
    """The same programs that a worker here would find."""
    return Tools(flow_options(os.environ).tools, dirs=(place.cwd,), search_path=os.environ.get("PATH", os.defpath))


def _workflows(place: Place, name: str | None) -> AppWorkflows | None:
    app = load_app(name, place.cwd)
    if app is None:
        return None
    from stepwell.functions.define import Workflow  # loaded only by whoever has an app

    return AppWorkflows(app.name, (one for one in app.registry if isinstance(one, Workflow)))


def _print(found: Found) -> None:
    for one in found.diagnostics:
        where = f"{one.file}: {one.key}" if one.key else one.file
        click.echo(f"{click.style(one.severity, fg=_COLORS[one.severity])}: {clean(f'{where}: {one.reason}')}")
        if one.hint:
            click.echo(f"  hint: {clean(one.hint)}")
    told = f"{found.flows} flows, {found.steps} steps: {found.count('error')} errors, {found.count('warning')} warnings"
    click.secho(told, bold=True)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_folders(folders: Iterable[Path], tools: Tools, app: AppWorkflows | None = None) -> Found:
    """All findings in all packages of these folders; with `app`, also of its workflows. Reads files only."""
    flows = steps = 0
    diagnostics: list[Diagnostic] = []
    for folder in dict.fromkeys(path.absolute() for path in folders):
        found = _discover(folder)
        flows, steps = flows + len(found.flows), steps + sum(len(flow.steps) for flow in found.flows)
        diagnostics += [one for problem in found.problems for one in _broken(problem)]
        for other in found.shadowed:
            hint = f"Remove one of them, or give it another name; {other.by} is used."
            file = str(other.path / MANIFEST)
            diagnostics.append(Diagnostic("warning", file, "name", f"{other.name!r} is shadowed by {other.by}", hint))
        if not (found.flows or found.problems):
            hint = "Make one with `stepwell flow new NAME`, or name the folder."
            diagnostics.append(Diagnostic("warning", str(folder), "", "has no flow packages", hint))
        schemas = Schemas()
        for flow in found.flows:
            diagnostics += _check_flow(flow, tools, schemas, app)
    return Found(flows, steps, tuple(diagnostics))


def _discover(folder: Path) -> Discovery:
    if (folder / MANIFEST).exists():
        return _one(folder)
    if any((folder / root).is_dir() for root in ROOTS):
        return discover(folder)
    return discover(folder, (folder,))


def _one(folder: Path) -> Discovery:
    try:
        return Discovery((load_flow(folder),), (), ())
    except Invalid as error:
        return Discovery((), (Problem(folder / MANIFEST, error.message, error.hint),), ())


def _broken(problem: Problem) -> Iterator[Diagnostic]:
    """Every reason why a manifest is refused, each with its key."""
    file = str(problem.path)
    try:
        if problem.path.name == MANIFEST and os.path.lexists(problem.path):
            load_flow(problem.path)
    except Invalid as error:
        for reason in error.fields.get("problems") or [error.message]:
            key, colon, text = reason.partition(": ")
            keyed = bool(colon) and " " not in key
            yield Diagnostic("error", file, key if keyed else "", text if keyed else reason, error.hint)
        return
    except OSError:
        pass
    yield Diagnostic("error", file, "", problem.reason, problem.hint)


def _check_flow(flow: Flow, tools: Tools, schemas: Schemas, app: AppWorkflows | None) -> Iterator[Diagnostic]:
    for index, step in enumerate(flow.steps):
        start = _check_start(flow, step, tools) if step.workflow is None else _check_workflow(step, app)
        for severity, key, reason, hint in (*_check_step(flow, step, schemas), *start):
            yield Diagnostic(severity, str(flow.manifest_path), f"steps[{index}].{key}", f"{step.name}: {reason}", hint)


def _check_step(flow: Flow, step: Step, schemas: Schemas) -> Iterator[tuple[Severity, str, str, str]]:
    if step.trigger is None:
        yield "note", "trigger", "no event starts it", "Give it a trigger, or run it with `stepwell flow run`."
    elif step.trigger.schema is not None:
        # A payload that does not fit is told with its path, which begins with $; anything else is about the schema.
        fault = schemas.check(flow.root, step.trigger.schema, {}, allow_outside=step.allow_outside)
        if fault and not fault.startswith("$"):
            yield "error", "trigger.schema", fault, "Correct the schema, or leave it out; no event can match now."
    if not step.enabled:
        yield "note", "enabled", "it is disabled", "Remove enabled = false when it should run."
    if step.cwd is not None and not (flow.root / step.cwd).is_dir():
        yield "error", "cwd", f"{flow.root / step.cwd} is no folder", "Create it, or correct the path."


def _check_workflow(step: Step, app: AppWorkflows | None) -> Iterator[tuple[Severity, str, str, str]]:
    """Whether the app has it; without an app that is not known."""
    fault = None if app is None else app.fault(step)
    if fault is not None:
        yield "error" if step.enabled else "note", *fault


def _check_start(flow: Flow, step: Step, tools: Tools) -> Iterator[tuple[Severity, str, str, str]]:
    """Whether a worker here could start it. A step that is disabled is not expected to."""
    try:
        program = RUNNERS[step.runner].argv(flow, step, tools, dict(os.environ))[0]
    except StepwellError as error:
        yield "error" if step.enabled else "note", "runner", error.message, error.hint
        return
    key = "command" if step.command else "script"
    if RUNNERS[step.runner].takes_command and not os.access(program, os.X_OK):
        what = "is not executable" if Path(program).exists() else "is not there"
        yield "error", key, f"{program} {what}", f"Run chmod +x {program}, or correct the path."
    elif key == "script" and RUNNERS[step.runner].takes_command and not _has_interpreter(Path(program)):
        hint = "Begin it with a line such as #!/bin/sh; systems differ in what they do without."
        yield "warning", key, f"{program} is a text without a #! line", hint


def _has_interpreter(path: Path) -> bool:
    """Whether a file begins with #!, or is a program."""
    with path.open("rb") as file:
        head = file.read(256)
    return head.startswith(b"#!") or b"\0" in head

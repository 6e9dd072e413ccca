"""`stepwell flow new`: writes a package that runs as it is."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click

from stepwell.cli.common import Place, json_option, print_json, with_place
from stepwell.cli.templates import EXTENSIONS, MODULES, SCRIPTS
from stepwell.flows.manifest import MANIFEST
from stepwell.model.errors import Exists, Invalid

#: Also the name of a folder, of a type and of files, so it is narrower than what a manifest may say.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@click.command()
@click.argument("name")
@click.option("--runner", type=click.Choice(list(SCRIPTS)), default="python", show_default=True, help="What runs it.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=Path("flows"), help="Folder of packages [CWD/flows]."
)
@click.option("--module", is_flag=True, help="The script exports a handler, instead of reading and printing itself.")
@json_option
@with_place
def new(place: Place, name: str, runner: str, folder: Path, module: bool, as_json: bool) -> None:
    """Write a package NAME with a step, a schema and an example event. Nothing is ever overwritten."""
    if not NAME.match(name):
        hint = "Use letters, digits, - and _, at most 64, beginning with a letter or a digit."
        raise Invalid(f"{name!r:.80} cannot be the name of a new flow", hint=hint)
    if module and runner not in MODULES:
        raise Invalid(f"the runner {runner} has no modules", hint=f"Use --runner with one of {', '.join(MODULES)}.")
    root = place.cwd / folder / name
    files = package_files(name, runner, module=module)
    _write(root, files)
    event = root / "event.json"
    shown = event.relative_to(Path.cwd()) if event.is_relative_to(Path.cwd()) else event
    command = f"stepwell flow fire --event {shlex.quote(str(shown))}"
    command += "" if place.cwd == Path.cwd() else f" --cwd {shlex.quote(str(place.cwd))}"
    if as_json:
        print_json({"flow": name, "root": str(root), "files": list(files), "next": command})
    else:
        for path in files:
            click.echo(f"{root / path}")
        click.echo(f"\nNext: {command}")


def package_files(name: str, runner: str, *, module: bool = False) -> dict[str, str]:
    """The texts of a package by their paths in it; the manifest is the last, so that no half package is found."""
    script = f"exec/greet{EXTENSIONS[runner]}"
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "minLength": 1}},
    }
    event = {"type": f"{name}.asked", "payload": {"name": "Ada"}}
    return {
        script: (MODULES if module else SCRIPTS)[runner],
        f"schemas/{name}.schema.json": json.dumps(schema, indent=2) + "\n",
        "event.json": json.dumps(event, indent=2) + "\n",
        MANIFEST: _manifest(name, runner, script, module),
    }


def _manifest(name: str, runner: str, script: str, module: bool) -> str:
    return f"""name = "{name}"
version = 1
description = "Greets whoever asks."

[[steps]]
name = "greet"
runner = "{runner}"
script = "{script}"
{"module = true" + chr(10) if module else ""}timeout_ms = 60000

[steps.trigger]
type = "{name}.asked"
schema = "schemas/{name}.schema.json"
"""


def _write(root: Path, files: dict[str, str]) -> None:
    """Writes a new folder: all of it, or none when something fails under way."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir()
    except FileExistsError:
        raise Exists(f"{root} is there already", hint="Choose another name or --dir; nothing was written.") from None
    try:
        for path, text in files.items():
            file = root / path
            file.parent.mkdir(exist_ok=True)
            with file.open("x", encoding="utf-8") as out:
                out.write(text)
            if text.startswith("#!"):
                file.chmod(0o755)
    except OSError:
        shutil.rmtree(root, ignore_errors=True)
        raise

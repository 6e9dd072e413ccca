"""What deploy/ holds, as far as it can be tried where no Docker engine runs and no unit can be started."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from msgspec import yaml

from stepwell.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent
UNITS = sorted((DEPLOY / "systemd").iterdir())
INSTALLED = "/opt/stepwell/bin/stepwell"
#: Of 10: systemd calls 2 "OK", and 9 what a unit without any hardening has.
EXPOSED = 2.0


def said(*command: str | Path) -> str:
    """What a tool says, if it is content."""
    done = subprocess.run([*command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def composed() -> Any:
    """The compose file, with what its services share in each of them."""
    return yaml.decode((DEPLOY / "compose.yaml").read_bytes())


def commands() -> list[list[str]]:
    """Every command line of Stepwell in these files, without the program's name."""
    services = composed()["services"].values()
    lines = [service["command"] for service in services if service["image"] == "stepwell"]
    for unit in UNITS:
        lines += [shlex.split(line)[1:] for line in re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)]
    lines.append(["serve"])  # of the Dockerfile
    return lines


def test_the_dockerfile_is_as_its_linter_wants_it() -> None:
    assert said(PROGRAMS / "hadolint", DEPLOY / "Dockerfile") == ""


def test_what_the_dockerfile_copies_is_here() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    sources = [source for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for source in line.split()]
    assert "src" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert 'CMD ["serve"]' in text


def test_the_compose_file_is_one_and_knows_its_services() -> None:
    file = PyCompose.from_yaml(yaml.encode(composed()).decode())
    assert sorted(file.service_names()) == ["postgres", "server", "server-b", "worker"]
    for service in composed()["services"].values():
        for volume in service["volumes"]:
            place = volume.partition(":")[0]
            assert place == "database" or (DEPLOY / place).exists()


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_every_command_is_one_with_such_options(line: list[str]) -> None:
    assert line[0] in COMMANDS
    assert said(PROGRAMS / "stepwell", *line, "--help")


def test_settings_that_are_named_are_settings() -> None:
    example = (DEPLOY / "stepwell.env.example").read_text()
    named = {name for path in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *UNITS)
             for name in re.findall(r"STEPWELL_[A-Z_]+", path.read_text())}  # fmt: skip
    assert "STEPWELL_DB" in named
    assert [name for name in named if f"{name}=" not in example] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_one_and_hardened(unit: Path, tmp_path: Path) -> None:
    """As it stands, but for where the program is."""
    analyze = shutil.which("systemd-analyze")
    assert analyze, "units are checked with systemd-analyze: install Debian's systemd"
    text = unit.read_text()
    assert INSTALLED in text
    here = tmp_path / unit.name
    here.write_text(text.replace(INSTALLED, str(PROGRAMS / "stepwell")))
    said(analyze, "verify", "--man=no", here)
    limit = f"--threshold={EXPOSED * 10:.0f}"
    said(analyze, "security", "--offline=true", "--no-pager", limit, here)


def test_a_unit_without_hardening_would_not_pass(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze
    bare = tmp_path / "bare.service"
    bare.write_text(f"[Service]\nExecStart={os.path.realpath('/bin/true')}\n")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSED * 10:.0f}", bare],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0

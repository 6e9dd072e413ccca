"""Executor `systemd-run`: each step is a transient service of the user manager (source: spec 4.5; fault 11).

The service's cgroup holds whatever the step starts, wherever that goes. `--pipe` hands our pipes to the service, and
`--wait` gives us its exit code. Variables are named on the command line and never given there (fault 17): systemd-run
takes their values from its own environment.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from stepwell.flows.executors.base import SCRIPT_HINT, Fault, Job, Launch, temporary_place
from stepwell.flows.executors.guard import MARK
from stepwell.flows.executors.only import FAILED
from stepwell.flows.runners.base import Tools
from stepwell.model.errors import Unavailable

ONLY = Path(__file__).with_name("only.py")
#: Where the user manager listens. systemd-run needs them; a step does not get them by this.
BUS_ENV = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
# What `systemctl stop` may take beyond the grace that the unit itself has.
STOP_MARGIN_MS = 5_000
# The worker ends a step at its timeout. The unit's own limit is for a worker that is gone by then.
BACKSTOP_MS = 10_000
HINT = (
    "The user manager must run (loginctl enable-linger USER) and XDG_RUNTIME_DIR be set; "
    "try `systemd-run --user --wait --pipe true`, or use the executor direct."
)
_INSTALL = "Install systemd, or use the executor direct."


class SystemdExecutor:
    """`systemd-run --user`, ended by `systemctl --user stop`."""

    def place(self, environ: Mapping[str, str]) -> Path:
        """Beside the user manager's own files, which do not outlive it, if they are ours."""
        place = Path(bus_environ(environ).get("XDG_RUNTIME_DIR", ""))
        with contextlib.suppress(OSError):
            if place.is_absolute() and os.access(place, os.W_OK) and place.stat().st_uid == os.geteuid():
                return place
        return temporary_place()

    @contextmanager
    def launch(self, job: Job, tools: Tools, environ: Mapping[str, str]) -> Iterator[Launch]:
        """The unit of one attempt. Raises `Unavailable` when systemd-run or systemctl is missing."""
        ambient = Tools(tools.configured, search_path=tools.search_path)  # a package's node_modules has no say here
        run, control = ambient.need("systemd-run", _INSTALL), ambient.need("systemctl", _INSTALL)
        bus = bus_environ(environ)
        unit = unit_name(job.run_id, job.attempt_id)
        with _folder(self.place(environ)) as folder:
            mark = Path(folder) / "started"
            yield Launch(
                argv=[run, *_arguments(job, unit), "--", *_command(job, mark)],
                env={**job.env, **bus},
                stop=_Stop([control, "--user", "stop", f"{unit}.service"], bus, job.kill_grace_ms + STOP_MARGIN_MS),
                fault=lambda stderr: None if mark.exists() else _fault(stderr),
            )


def unit_name(run_id: str, attempt_id: str) -> str:
    """`codex-flow-<run>-<10 hex>`, as in the seed; the hash is of the attempt, since each is a unit of its own."""
    readable = re.sub(r"[^a-z0-9-]+", "-", run_id.lower()).strip("-")[:48].strip("-")
    digest = hashlib.sha256(attempt_id.encode(errors="replace")).hexdigest()[:10]
    return "-".join(part for part in ("codex-flow", readable, digest) if part)


def bus_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What leads to the user manager. A worker that no login started finds it where systemd puts it."""
    found = {name: environ[name] for name in BUS_ENV if environ.get(name)}
    usual = Path(f"/run/user/{os.getuid()}")
    return found or ({"XDG_RUNTIME_DIR": str(usual)} if usual.is_dir() else {})


def _folder(place: Path) -> "tempfile.TemporaryDirectory[str]":
    """Where the unit leaves its mark."""
    try:
        return tempfile.TemporaryDirectory(prefix="stepwell-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        hint = "Free the disk, or set TMPDIR to a folder that can be written."
        raise Unavailable(f"no temporary folder can be made: {error.strerror}", hint=hint) from None


def _fault(stderr: str) -> Fault:
    lines = [line for line in stderr.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "it said nothing"
    return Fault(f"systemd-run did not start the step: {last}", SCRIPT_HINT if last.startswith(FAILED) else HINT)


def _arguments(job: Job, unit: str) -> list[str]:
    limit_ms = job.timeout_ms + job.kill_grace_ms + BACKSTOP_MS
    grace_ms = max(1, job.kill_grace_ms)  # systemd takes 0 for: as long as it wants
    properties = ("KillMode=control-group", f"TimeoutStopSec={grace_ms}ms", f"RuntimeMaxSec={limit_ms}ms")
    return [
        *("--user", "--collect", "--wait", "--pipe", "--quiet", f"--unit={unit}", f"--working-directory={job.cwd}"),
        *(f"--property={one}" for one in properties),
        *(f"--setenv={name}" for name in _names(job)),
    ]


def _command(job: Job, mark: Path) -> list[str]:
    # The service manager expands $NAME in the arguments of a service; $$ is a dollar.
    theirs = [argument.replace("$", "$$") for argument in (str(ONLY), str(mark), ",".join(_names(job)), *job.argv)]
    return [sys.executable, "-I", "-S", *theirs]


def _names(job: Job) -> list[str]:
    return sorted({*job.env, MARK})  # the mark, so that a guard finds the step's processes when the worker was killed


class _Stop(Struct, frozen=True):
    """Ends the unit: TERM to all of it, the unit's grace, KILL. Returns when that is done, or at the limit."""

    command: Sequence[str]
    bus: Mapping[str, str]
    limit_ms: int

    async def __call__(self) -> None:
        with contextlib.suppress(OSError):
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env={"PATH": os.defpath, **self.bus},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(self.limit_ms / 1000):
                    await process.wait()
            except TimeoutError:  # the unit's own limit remains
                process.kill()
                await process.wait()

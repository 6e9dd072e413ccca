"""Module style: which scripts export a handler, and what calls it (source: spec codex-flows 3.1; fault 18).

`module = true` or `false` decides. Without the key, only Bun scripts can be modules, and Bun's own parser says so: what
looks like an export in a comment, a text or a regular expression is none.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from stepwell.model.errors import Invalid, Unavailable

LAUNCHER_JS = Path(__file__).with_name("module.mjs")
LAUNCHER_PYTHON = Path(__file__).with_name("module_python.py")
MAX_SCRIPT_BYTES = 16 * 1024 * 1024
MAX_KNOWN = 1_000
PROBE_S = 10.0
_PROBE = """
const [path, loader] = process.argv.slice(1);
const { exports } = new Bun.Transpiler({ loader }).scan(await Bun.file(path).text());
console.log(exports.includes("default"));
"""
_LOADERS = {".ts": "ts", ".mts": "ts", ".cts": "ts", ".tsx": "tsx"}
_SAY_SO = "Set module = true or module = false on the step."

_Stamp = tuple[str, int, int]


class BunModules:
    """Tells modules from plain scripts, and remembers what it found out until the file changes."""

    def __init__(self) -> None:
        self._known: dict[_Stamp, bool] = {}

    def is_module(self, script: Path, bun: str, environ: Mapping[str, str]) -> bool:
        """Whether the script has a default export. Raises `Invalid` or `Unavailable` when that cannot be told."""
        try:
            found = script.stat()
            stamp = (str(script), found.st_mtime_ns, found.st_size)
            known = self._known.get(stamp)
            return self._find_out(stamp, bun, environ) if known is None else known
        except OSError as error:
            hint = "Check that the script exists and that its permissions allow reading."
            raise Invalid(f"the script {script} cannot be read: {error.strerror}", hint=hint) from None

    def _find_out(self, stamp: _Stamp, bun: str, environ: Mapping[str, str]) -> bool:
        script, _, size = stamp
        if size > MAX_SCRIPT_BYTES:
            raise Invalid(f"the script is over {MAX_SCRIPT_BYTES} bytes; too large to look for a handler", hint=_SAY_SO)
        is_module = b"default" in Path(script).read_bytes() and _has_default(script, bun, environ)
        if len(self._known) >= MAX_KNOWN:  # forgetting costs one probe each
            self._known.clear()
        self._known[stamp] = is_module
        return is_module


def _has_default(script: str, bun: str, environ: Mapping[str, str]) -> bool:
    """Ask the parser. What it cannot parse is no module: run as a script, it says itself what is wrong."""
    command = [bun, "-e", _PROBE, script, _LOADERS.get(Path(script).suffix, "jsx")]
    try:
        answer = subprocess.run(  # noqa: S603 - our program, with a path
            command,
            cwd="/",  # where no bunfig.toml makes Bun run something else first
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Bun took over {PROBE_S:.0f} s to parse {script}", hint=_SAY_SO) from None
    return answer.stdout.strip() == b"true"

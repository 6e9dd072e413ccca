"""`python -m stepwell.flows.codemode SCRIPT (--remote URL | -- COMMAND...)`, as runners/code_mode.py calls it."""

import io
import sys
from pathlib import Path

from stepwell.flows.codemode.output import Output
from stepwell.flows.codemode.program import MAX_CONTEXT_BYTES, Job, run


def main(arguments: list[str]) -> int:
    """Run the step. Exit code 2: not called by the runner."""
    if len(arguments) < 3 or arguments[1] not in ("--", "--remote"):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    script, how, *rest = arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the environment of a step says nothing of a locale
            stream.reconfigure(encoding="utf-8", errors="replace")
    context = sys.stdin.buffer.read(MAX_CONTEXT_BYTES + 1)
    command, url = ((), rest[0]) if how == "--remote" else (rest, None)
    job = Job(Path(script), context, str(Path.cwd()), command, url)
    return run(job, Output(sys.stdout, sys.stderr))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Becomes a program that has only the named variables; runs in a systemd unit, by any Python (source: spec 4.5).

A service gets the environment of the user manager in addition to what it was given. That may hold anything, and a step
gets nothing that was not named. Usage: python -I -S only.py MARK NAMES PROGRAM [ARGUMENT ...]. The file MARK is there
as soon as we run, and is gone if PROGRAM cannot be started; so whoever waits knows which exit code is whose.
"""

import os
import sys

FAILED = "cannot start"


def main(mark: str, names: str, *argv: str) -> None:
    """Replace this process."""
    os.close(os.open(mark, os.O_CREAT | os.O_WRONLY, 0o600))
    kept = {name: os.environ[name] for name in names.split(",") if name in os.environ}
    try:
        os.execvpe(argv[0], argv, kept)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.unlink(mark)  # noqa: PTH108 - no need to load pathlib for this
        sys.exit(f"{FAILED} {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Whether a worker lives on a database: each holds a shared lock on a file beside it, which no crash leaves behind."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.workers")


@contextlib.contextmanager
def present(path: Path | None) -> Iterator[None]:
    """Tells that a worker of the database at `path` lives, while the block lasts; None: there is nothing to tell."""
    with contextlib.ExitStack() as held:
        if path is not None:
            with contextlib.suppress(OSError):  # only the sentences of `runs show` know less then
                fd = os.open(_beside(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                held.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_SH)  # who looks holds it for microseconds
        yield


def any_worker(path: Path | None) -> bool | None:
    """Whether some worker lives; None when that cannot be known, as of a database on another machine."""
    if path is None:
        return None
    try:
        fd = os.open(_beside(path), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(fd)
    return False

"""Which workers of a database live: each holds a lock on a file of its own beside it, which no crash leaves behind.

The system gives a lock back when its process is gone, whatever ended it, and never before: a process that was stopped
(SIGSTOP) or hangs holds it. So a file that is there and that nobody holds is of a worker that died. Whoever ends well
removes its file, so that nothing is concluded from it.

All who share a SQLite file run under one kernel, in however many containers, since WAL is memory that they share. A
file that tells of another boot of the machine, or of another machine, proves nothing: its leases run out.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from stepwell.kernel import check
from stepwell.model.errors import Unavailable

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FILE = re.compile("[0-9a-f]{32}")
#: How often a file may be removed by others between our opening and our locking it.
_TRIES = 100
_READ = 4_096


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.alive")


def _file(path: Path, name: str) -> Path:
    return _folder(path) / hashlib.sha256(name.encode()).hexdigest()[:32]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in _folder(path).iterdir() if _FILE.fullmatch(file.name))


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


class Sign:
    """The file of a worker, and our lock on it."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd

    def write(self, name: str) -> None:
        """Whose it is."""
        os.truncate(self._fd, 0)
        os.pwrite(self._fd, f"{_boot()}\n{name}".encode(), 0)

    @property
    def name(self) -> str | None:
        """Whose it is; None when nothing can be said, as when its worker died before it wrote, or on another boot."""
        boot, _, name = os.pread(self._fd, _READ, 0).decode(errors="replace").partition("\n")
        mine = boot == _boot() and hashlib.sha256(name.encode()).hexdigest().startswith(self._path.name)
        return name if name and mine else None

    def remove(self) -> None:
        """Ends file and lock, in this order: who waits for the lock must see that the file is another one."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self.close()
            with contextlib.suppress(OSError):  # somebody else lives
                self._path.parent.rmdir()

    def close(self) -> None:
        """Ends the lock alone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(path: Path, flags: int = 0) -> Sign | None:
    """Our lock on a file; None when it was removed meanwhile. Raises BlockingIOError when somebody else has it."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return Sign(path, fd)
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


class Presence:
    """Tells that the worker `name` of the database at `path` lives, while the block lasts.

    Enter it before the first claim. `path` None: nothing is told, and so it is where files cannot be locked. Raises
    `Unavailable` for the name of another worker that lives, `Invalid` for what is no name.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        check.name("worker", name)
        self._path, self._name = path, name
        self._sign: Sign | None = None

    def __enter__(self) -> None:
        if self._path is None:
            return
        try:
            self._sign = _raised(self._path, self._name)
        except BlockingIOError:
            hint = "Give each worker a name of its own. If it was killed just now, try again after a moment."
            raise Unavailable(f"a worker {self._name!r} lives on {self._path}", hint=hint) from None
        except OSError:
            return  # nobody sees that we live, or that we died: the leases tell
        _not_in_children(self._sign)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._sign is not None:
            self._sign.remove()


def _raised(path: Path, name: str) -> Sign:
    """The sign of a worker. What a dead one of the same name has left is overwritten: its leases run out."""
    for _ in range(_TRIES):
        _folder(path).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the folder was removed meanwhile
            sign = _locked(_file(path, name), os.O_CREAT)
            if sign is not None:
                break
    else:
        raise OSError(f"{_folder(path)} is removed again and again")
    try:
        sign.write(name)
    except OSError:
        sign.remove()
        raise
    return sign


def _not_in_children(sign: Sign) -> None:
    """A fork without exec has our files, and would hold the lock for as long as it lives: it is not the worker."""
    mine = weakref.ref(sign)

    def forked() -> None:
        sign = mine()
        if sign is not None:
            sign.close()

    os.register_at_fork(after_in_child=forked)


def dead(path: Path) -> Iterator[Sign]:
    """The signs of workers that died, each locked, so that we alone have it and no namesake begins; end each."""
    with contextlib.suppress(OSError):
        for file in _files(path):
            with contextlib.suppress(OSError):  # it lives, or somebody else looks, or nobody can know
                sign = _locked(file)
                if sign is not None:
                    yield sign


def has_died(path: Path | None, name: str) -> bool:
    """Whether it is proven that a worker died, and nobody has buried it yet. False: it lives, or nobody can know."""
    if path is None:
        return False
    try:
        fd = os.open(_file(path, name), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    sign = Sign(_file(path, name), fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return sign.name == name
    finally:
        sign.close()


def any_worker(path: Path | None) -> bool | None:
    """Whether some worker lives; None when that cannot be known, as of a database on another machine."""
    if path is None:
        return None
    try:
        return any(_is_held(file) for file in _files(path))
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _is_held(file: Path) -> bool:
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False

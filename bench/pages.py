"""The operating system's cache of a file: dropping it, and looking whether it is really gone."""

import ctypes
import mmap
import os
import sqlite3
from contextlib import closing
from pathlib import Path


def drop(path: Path) -> None:
    """Asks the system to forget the pages of a database, its log folded in first, all of it on the disk."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    for part in path.parent.glob(f"{path.name}*"):
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def resident(path: Path) -> float | None:
    """Which share of a file the system has in memory; None when it does not tell."""
    size = path.stat().st_size
    if not size:
        return 0.0
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        count = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        state = (ctypes.c_ubyte * count)()
        first = ctypes.c_ubyte.from_buffer(view)
        try:
            failed = ctypes.CDLL(None, use_errno=True).mincore(
                ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), state
            )
        finally:
            del first
        return None if failed else sum(one & 1 for one in state) / count


def cold(path: Path) -> str:
    """Drops a file's pages; answers what came of it, for the report."""
    drop(path)
    left = resident(path)
    return "drop not verifiable" if left is None else f"{left:.1%} of the file still in memory"

"""What the machine is, how fast its disk says that a write is safe, and whether it may be measured on at all."""

import os
import platform
import sqlite3
import statistics
import time
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stepwell.store.sqlite.store import SqliteStore

MEMORY = {"tmpfs", "ramfs", "rootfs", "hugetlbfs"}


class NotADisk(Exception):
    """The folder is in memory: what is measured there says nothing about durability."""


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: of the longest mount point that is a parent of it."""
    target = str(folder.resolve())
    best, kind = "", "unknown"
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        _, point, what, *_ = mount.split()
        point = point.encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, what
    return kind


def refuse_memory(folder: Path) -> None:
    """Raises `NotADisk` on a memory file system."""
    kind = file_system(folder)
    if kind in MEMORY:
        raise NotADisk(f"{folder} is on {kind}, which keeps nothing: name a folder on a disk with --dir")


def fsync_floor(folder: Path, count: int = 200) -> list[float]:
    """Seconds of single 4 KiB writes, each with its fsync, into one file."""
    path, block, took = folder / "fsync.bin", os.urandom(4_096), []
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for number in range(count):
            started = time.perf_counter()
            os.pwrite(handle, block, 4_096 * number)
            os.fsync(handle)
            took.append(time.perf_counter() - started)
    finally:
        os.close(handle)
        path.unlink()
    return took


def facts(folder: Path) -> dict[str, str]:
    """Everything that a figure below depends on."""
    floor = fsync_floor(folder)
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    cores = f"{os.cpu_count()} cores ({_processor()})"
    return {
        "machine": f"{platform.machine()}, {cores}, {_memory_gib():.0f} GiB, load {load}",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": uvloop_version() or "not installed: asyncio only",
        "folder": file_system(folder),
        "fsync": f"4 KiB write + fsync: median {statistics.median(floor) * 1e3:.3f} ms "
        f"({min(floor) * 1e3:.3f} to {max(floor) * 1e3:.3f}, n {len(floor)})",
        "sqlite": f"{sqlite3.sqlite_version}: {_settings(folder)}",
    }


def uvloop_version() -> str | None:
    """None: uvloop is not installed."""
    try:
        return version("uvloop")
    except PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((one.split(":", 1)[1].strip() for one in lines if one.startswith("model name")), "unknown")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _settings(folder: Path) -> str:
    """The settings of a connection as the engine opens it."""
    names = ("journal_mode", "synchronous", "wal_autocheckpoint", "cache_size", "page_size", "mmap_size", "temp_store")
    path = folder / "settings.sqlite"
    with closing(SqliteStore(path).connect()) as db:
        values = {name: db.execute(f"pragma {name}").fetchone() for name in names}
    for left in folder.glob("settings.sqlite*"):
        left.unlink()
    levels = {0: "off", 1: "normal", 2: "full", 3: "extra"}
    shown = {name: "" if value is None else value[0] for name, value in values.items()}
    shown["synchronous"] = levels[int(shown["synchronous"])]
    return ", ".join(f"{name} {value}" for name, value in shown.items())

"""A process that does nothing with a database for a while, and says what that cost. Started by `idle`."""

import asyncio
import json
import resource
import sys
from pathlib import Path

from bench.rig import engine_on

SETTLE_S = 3.0


def resident_mib() -> float:
    """Memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def busy_s() -> float:
    """Processor time of this process, all threads, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def sleep_on(place: Path | str, seconds: float) -> dict[str, float]:
    """Opens an engine with all its roles, lets it settle, and waits."""
    async with engine_on(place):
        await asyncio.sleep(SETTLE_S)
        before = busy_s()
        await asyncio.sleep(seconds)
        return {"cpu": (busy_s() - before) / seconds * 100, "mib": resident_mib()}


if __name__ == "__main__":
    place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
    print(json.dumps(asyncio.run(sleep_on(place, float(sys.argv[2])))))

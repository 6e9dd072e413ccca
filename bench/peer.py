"""Subject `peer`: DBOS on SQLite beside ours, in one run: ours, the peer, ours. Same payload, both with full sync.

Both run whole workflows through their public APIs, in one process. `postgres_peer` does the same on PostgreSQL."""

import asyncio
import json
import sqlite3
import subprocess
import time
import venv
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import programs
from bench.ground import Ground, OnSqlite
from bench.report import Row, at_least, latencies, number
from bench.rig import Rig, run
from stepwell import Stepwell

REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")
PROGRAM = Path(__file__).with_name("peer_dbos.py")
CALLERS = 100


def measure(rig: Rig) -> Iterator[Row]:
    """The peer as it comes, and with its file switched to SQLite's write-ahead log, which it does not do by itself."""
    python, loop, ground = environment(rig.folder / "peer-venv"), rig.loops()[-1], OnSqlite(rig)
    mine = run(ours(rig, ground, "before"), loop)
    peers = {journal: told(rig, python, _file(rig, journal)) for journal in ("delete", "wal")}
    for name, samples in run(ours(rig, ground, "after"), loop).items():
        mine[name] += samples
    for journal, peer in peers.items():
        about = peer["about"]
        level = {0: "off", 1: "normal", 2: "full", 3: "extra"}[about["synchronous"]]
        note = f"dbos {about['dbos']}, journal {about['journal_mode']}, synchronous {level}"
        yield from theirs(f"peer ({journal})", peer, note)
    yield from our_rows(mine)
    for journal, peer in peers.items():
        yield from ratios(f"ours / peer ({journal})", mine, peer)


def _file(rig: Rig, journal: str) -> str:
    path = rig.fresh(f"peer-{journal}")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma journal_mode = {journal}")
    return f"sqlite:///{path}"


def our_rows(mine: dict[str, list[float]]) -> Iterator[Row]:
    """What ours reached."""
    yield Row("ours: 1 workflow", "steps/s", mine["sequential"])
    yield Row(f"ours: {CALLERS} workflows at once", "steps/s", mine["many"])
    yield Row("ours: trivial workflows at once, leased as they start", "wf/s", mine["direct"])
    yield Row("ours: trivial workflows at once, through the queue", "wf/s", mine["queued"])
    yield latencies("ours: start to result", mine["start_to_result"])
    yield latencies("ours: signal to resumed", mine["signal"])


def ratios(what: str, mine: dict[str, list[float]], peer: dict[str, Any], steps_budget: float = 50) -> Iterator[Row]:
    """Each at the concurrency that suits it best."""
    steps = max(_median(peer[name]) for name in ("sequential", "some", "many"))
    shares = (
        ("1 workflow", "sequential", _median(peer["sequential"]), None),
        ("steps/s, each at its best", "many", steps, at_least(steps_budget)),
        ("wf/s, started directly", "direct", _median(peer["direct"]), None),
        ("wf/s through the queue", "queued", _median(peer["queued"]), at_least(50)),
    )
    for name, key, theirs, budget in shares:
        note = f"the peer's {number(theirs)}"
        yield Row(f"{what}: {name}", "x", [one / theirs for one in mine[key]], note, budget)


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]


def environment(folder: Path) -> Path:
    """The interpreter of a new environment with the peer; raises with pip's own words when it cannot be installed."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the peer cannot be installed: {done.stderr.strip()[-800:]}")
    return python


def told(rig: Rig, python: Path, url: str) -> dict[str, Any]:
    """What the peer says of itself."""
    steps, each = rig.pick((200, 3), (1_000, 10))
    command = [str(python), str(PROGRAM), url, str(steps), str(CALLERS), str(each)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the peer failed: {done.stderr.strip()[-800:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def theirs(what: str, peer: dict[str, Any], note: str) -> Iterator[Row]:
    """What the peer reached."""
    yield Row(f"{what}: 1 workflow", "steps/s", peer["sequential"], note)
    yield Row(f"{what}: 10 workflows at once", "steps/s", peer["some"])
    yield Row(f"{what}: {CALLERS} workflows at once", "steps/s", peer["many"])
    yield Row(f"{what}: {CALLERS} trivial workflows", "wf/s", peer["direct"], "started directly")
    yield Row(f"{what}: {CALLERS} trivial workflows, queue", "wf/s", peer["queued"], "polls each second")
    yield latencies(f"{what}: start to result", peer["start_to_result"])
    yield latencies(f"{what}: signal to resumed", peer["signal"])


async def ours(rig: Rig, ground: Ground, when: str) -> dict[str, list[float]]:
    """The same workflows as the peer's: a chain of steps alone, many chains at once, trivial ones, a signal."""
    names = ("sequential", "many", "direct", "queued", "start_to_result", "signal")
    mine: dict[str, list[float]] = {name: [] for name in names}
    steps, each, trivial = rig.pick((400, 30, 500), (2_000, 100, 3_000))
    async with programs.opened(ground.url(f"ours-{when}")) as sw:
        for _ in range(3):
            mine["sequential"].append(await _rate(sw, 1, steps))
            mine["many"].append(await _rate(sw, CALLERS, each))
            for name, ended in (("direct", programs.direct), ("queued", programs.queued)):
                began = time.perf_counter()
                await asyncio.gather(*(ended(sw) for _ in range(trivial)))
                mine[name].append(trivial / (time.perf_counter() - began))
        for _ in range(50):
            began = time.perf_counter()
            await (await sw.start(programs.chain, 1)).result()
            mine["start_to_result"].append(time.perf_counter() - began)
            mine["signal"].append(await programs.resumed(sw, 0, "waiting"))
    return mine


async def _rate(sw: Stepwell, at_once: int, steps: int) -> float:
    began = time.perf_counter()
    runs = await asyncio.gather(*(sw.start(programs.chain, steps) for _ in range(at_once)))
    await asyncio.gather(*(one.result() for one in runs))
    return at_once * steps / (time.perf_counter() - began)

"""Subject `peer`: DBOS on SQLite beside ours, in one run: ours, the peer, ours. Same payload, both with full sync.

Both run whole workflows through their public APIs, in one process."""

import asyncio
import json
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import programs
from bench.report import Row, at_least, latencies, number
from bench.rig import Rig, run
from stepwell import Stepwell

REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")
PROGRAM = Path(__file__).with_name("peer_dbos.py")
CALLERS = 100


def measure(rig: Rig) -> Iterator[Row]:
    """The peer as it comes, and with its file switched to a write-ahead log, which is a favour to it."""
    python = _environment(rig.folder / "peer-venv")
    loop = rig.loops()[-1]
    ours = run(_ours(rig, "before"), loop)
    told = {journal: _told(rig, python, journal) for journal in ("delete", "wal")}
    for name, samples in run(_ours(rig, "after"), loop).items():
        ours[name] += samples
    for journal, peer in told.items():
        yield from _theirs(journal, peer)
    yield Row("ours: 1 workflow", "steps/s", ours["sequential"])
    yield Row(f"ours: {CALLERS} workflows at once", "steps/s", ours["many"])
    yield Row("ours: trivial workflows at once, leased as they start", "wf/s", ours["direct"])
    yield Row("ours: trivial workflows at once, through the queue", "wf/s", ours["queued"])
    yield latencies("ours: start to result", ours["start_to_result"])
    yield latencies("ours: signal to resumed", ours["signal"])
    for journal, peer in told.items():
        yield from _ratios(f"ours / peer ({journal})", ours, peer)


def _ratios(what: str, ours: dict[str, list[float]], peer: dict[str, Any]) -> Iterator[Row]:
    """Each at the concurrency that suits it best."""
    steps = max(_median(peer[name]) for name in ("sequential", "some", "many"))
    shares = (
        ("1 workflow", "sequential", _median(peer["sequential"]), None),
        ("steps/s, each at its best", "many", steps, at_least(50)),
        ("wf/s, started directly", "direct", _median(peer["direct"]), None),
        ("wf/s through the queue", "queued", _median(peer["queued"]), at_least(50)),
    )
    for name, key, theirs, budget in shares:
        note = f"the peer's {number(theirs)}"
        yield Row(f"{what}: {name}", "x", [one / theirs for one in ours[key]], note, budget)


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]


def _environment(folder: Path) -> Path:
    """The interpreter of a new environment with the peer; raises with pip's own words when it cannot be installed."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the peer cannot be installed: {done.stderr.strip()[-800:]}")
    return python


def _told(rig: Rig, python: Path, journal: str) -> dict[str, Any]:
    folder = rig.fresh(f"peer-{journal}").parent
    steps, each = rig.pick((200, 3), (1_000, 10))
    command = [str(python), str(PROGRAM), str(folder), journal, str(steps), str(CALLERS), str(each)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the peer failed: {done.stderr.strip()[-800:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _theirs(journal: str, peer: dict[str, Any]) -> Iterator[Row]:
    about = peer["about"]
    level = {0: "off", 1: "normal", 2: "full", 3: "extra"}[about["synchronous"]]
    note = f"dbos {about['dbos']}, SQLite {about['sqlite']}, journal {about['journal_mode']}, synchronous {level}"
    yield Row(f"peer ({journal}): 1 workflow", "steps/s", peer["sequential"], note)
    yield Row(f"peer ({journal}): 10 workflows at once", "steps/s", peer["some"])
    yield Row(f"peer ({journal}): {CALLERS} workflows at once", "steps/s", peer["many"])
    yield Row(f"peer ({journal}): {CALLERS} trivial workflows", "wf/s", peer["direct"], "started directly")
    yield Row(f"peer ({journal}): {CALLERS} trivial workflows, queue", "wf/s", peer["queued"], "polls each second")
    yield latencies(f"peer ({journal}): start to result", peer["start_to_result"])
    yield latencies(f"peer ({journal}): signal to resumed", peer["signal"])


async def _ours(rig: Rig, when: str) -> dict[str, list[float]]:
    """The same workflows as the peer's: a chain of steps alone, many chains at once, trivial ones, a signal."""
    names = ("sequential", "many", "direct", "queued", "start_to_result", "signal")
    ours: dict[str, list[float]] = {name: [] for name in names}
    steps, each, trivial = rig.pick((400, 30, 500), (2_000, 100, 3_000))
    async with programs.opened(rig.fresh(f"ours-{when}")) as sw:
        for _ in range(3):
            ours["sequential"].append(await _rate(sw, 1, steps))
            ours["many"].append(await _rate(sw, CALLERS, each))
            for name, ended in (("direct", programs.direct), ("queued", programs.queued)):
                began = time.perf_counter()
                await asyncio.gather(*(ended(sw) for _ in range(trivial)))
                ours[name].append(trivial / (time.perf_counter() - began))
        for _ in range(50):
            began = time.perf_counter()
            await (await sw.start(programs.chain, 1)).result()
            ours["start_to_result"].append(time.perf_counter() - began)
            ours["signal"].append(await programs.resumed(sw, 0, "waiting"))
    return ours


async def _rate(sw: Stepwell, at_once: int, steps: int) -> float:
    began = time.perf_counter()
    runs = await asyncio.gather(*(sw.start(programs.chain, steps) for _ in range(at_once)))
    await asyncio.gather(*(one.result() for one in runs))
    return at_once * steps / (time.perf_counter() - began)

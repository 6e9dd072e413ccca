"""Subject `peer`: DBOS on SQLite beside ours, in one run: ours, the peer, ours. Same payload, both with full sync."""

import asyncio
import json
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import workflows
from bench.report import Row, at_least, latencies, number
from bench.rig import Rig, engine_on, run, turns
from bench.workflows import fused, separate

REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")
PROGRAM = Path(__file__).with_name("peer_dbos.py")
CALLERS = 100


def measure(rig: Rig) -> Iterator[Row]:
    """The peer as it comes, and with its file switched to a write-ahead log, which is a favour to it."""
    python = _environment(rig.folder / "peer-venv")
    ours = run(_ours(rig, "before"))
    told = {journal: _told(rig, python, journal) for journal in ("delete", "wal")}
    for name, samples in run(_ours(rig, "after")).items():
        ours[name] += samples
    for journal, peer in told.items():
        yield from _theirs(journal, peer)
    yield Row("ours: 1 workflow", "steps/s", ours["sequential"])
    yield Row(f"ours: {CALLERS} workflows at once", "steps/s", ours["many"])
    yield Row(f"ours: {CALLERS} at once, separate commands", "wf/s", ours["separate"])
    yield Row(f"ours: {CALLERS} at once, fused", "wf/s", ours["fused"])
    for journal, peer in told.items():
        yield from _ratios(f"ours / peer ({journal})", ours, peer)


def _ratios(what: str, ours: dict[str, list[float]], peer: dict[str, Any]) -> Iterator[Row]:
    """Each at the concurrency that suits it best."""
    steps = max(_median(peer[name]) for name in ("sequential", "some", "many"))
    shares = (
        ("1 workflow", "sequential", _median(peer["sequential"]), None),
        ("steps/s, each at its best", "many", steps, at_least(50)),
        ("wf/s through the queue", "separate", _median(peer["queued"]), at_least(50)),
        ("wf/s started directly", "fused", _median(peer["direct"]), None),
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
    rates: dict[str, list[float]] = {"sequential": [], "many": []}
    steps, each = rig.pick((400, 60), (2_000, 200))
    async with engine_on(rig.fresh(f"ours-{when}")) as engine:
        (alone,) = await turns(engine, 1, "alone")
        leased = await turns(engine, CALLERS, "many")
        for _ in range(3):
            began = time.perf_counter()
            await alone.steps(engine, steps)
            rates["sequential"].append(steps / (time.perf_counter() - began))
            began = time.perf_counter()
            await asyncio.gather(*(turn.steps(engine, each) for turn in leased))
            rates["many"].append(CALLERS * each / (time.perf_counter() - began))
    for name, one in (("separate", separate), ("fused", fused)):
        rates[name] = (await workflows.closed_loop(rig, CALLERS, name, one)).samples
    return rates

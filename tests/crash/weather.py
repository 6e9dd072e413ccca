"""The storm as its parent sees it: starts workers, kills them, and holds what they wrote down against the file."""

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.engine.clock import wall_ms
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.rows import Entry, Event, Run
from stepwell.store.port import Reader, scan_all
from tests.crash.storm import SETTINGS, Line
from tests.crash.support import offences, start_child
from tests.support import durable

WORKERS = 8
WAIT_BOUND_MS = 10_000
#: One run for so many commands of a worker's share: each run gets some steps, and not all get to their end.
RUN_PER = 3
_decode = msgspec.json.Decoder(Line).decode


class Report(Struct):
    """What a storm was like."""

    commands: int = 0
    unanswered: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    kills: int = 0
    freezes: int = 0
    entries: int = 0
    longest_wait_ms: int = 0
    longest_lock_ms: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.commands:,} commands of {WORKERS} processes in {self.seconds:.1f} s, {self.entries:,} entries, "
            f"{self.kills} kills, {self.freezes} freezes, {self.unanswered} unanswered, "
            f"refused {dict(self.refused)}; "
            f"longest wait for an answer {self.longest_wait_ms} ms, for the store's lock {self.longest_lock_ms} ms"
        )


class Slot:
    """One of the places of the storm: a worker, and after its death another."""

    def __init__(self, folder: Path, storm: str, number: int, share: int) -> None:
        self.folder, self.storm, self.number, self.share = folder, storm, number, share
        self.life = 0
        self.process: subprocess.Popen[bytes] | None = None

    def ledger(self, life: int) -> Path:
        return self.folder / f"{self.storm}.ledger-{self.number}-{life}"

    def sent(self) -> int:
        """How many commands its workers began."""
        return sum(
            self.ledger(life).read_bytes().count(b'"intent"')
            for life in range(1, self.life + 1)
            if self.ledger(life).exists()
        )

    def start(self) -> bool:
        """Starts the next worker on what is left; False when nothing is."""
        left = self.share - self.sent()
        if left <= 0:
            self.process = None
            return False
        self.life += 1
        name = f"{self.storm}.w{self.number}.{self.life}"
        where = (str(self.folder / "x.sqlite"), str(self.ledger(self.life)))
        self.process = start_child("tests.crash.storm", *where, name, str(left), str(self.share // RUN_PER))
        return True


class Lightning:
    """Strikes a worker from time to time: kills it, or freezes it for longer than its leases last."""

    def __init__(self, storm: str, every_s: float, freeze_s: float, report: Report) -> None:
        self.rng, self.every_s, self.freeze_s, self.report = random.Random(storm), every_s, freeze_s, report
        self.next_at = time.monotonic() + every_s
        self.frozen: list[tuple[float, subprocess.Popen[bytes]]] = []

    def strike(self, slots: list[Slot]) -> None:
        """Does what is due now."""
        now = time.monotonic()
        while self.frozen and self.frozen[0][0] < now:
            self.frozen.pop(0)[1].send_signal(signal.SIGCONT)
        if now < self.next_at:
            return
        # The fewer are left, the fewer strokes: or the last one would never have the time to open its store.
        self.next_at = now + self.every_s * (0.5 + self.rng.random()) * WORKERS / len(slots)
        victim = self.rng.choice(slots).process
        if victim is None or victim.poll() is not None:
            return
        if self.freeze_s and self.rng.random() < 0.3:
            victim.send_signal(signal.SIGSTOP)
            self.frozen.append((now + self.freeze_s, victim))
            self.report.freezes += 1
        else:
            victim.kill()
            self.report.kills += 1


def rage(folder: Path, storm: str, *, commands: int, every_s: float, freeze_s: float, limit_s: float) -> Report:
    """Lets eight workers do so many commands, and strikes one of them every `every_s`."""
    report, began = Report(), time.monotonic()
    slots = [Slot(folder, storm, number, commands // WORKERS) for number in range(WORKERS)]
    lightning = Lightning(storm, every_s, freeze_s, report)
    try:
        busy = [slot for slot in slots if slot.start()]
        while busy:
            assert time.monotonic() - began < limit_s, "the storm does not end"
            time.sleep(0.02)
            lightning.strike(busy)
            busy = [slot for slot in busy if still_busy(slot)]
    finally:
        for slot in slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()
    report.seconds = time.monotonic() - began
    return report


def still_busy(slot: Slot) -> bool:
    """Whether a slot has a worker, a new one in place of a dead one."""
    assert slot.process is not None
    status = slot.process.poll()
    if status is None:
        return True
    assert status in (0, -9), f"a worker ended with {status}"
    return slot.start()


def lines(folder: Path, storm: str) -> Iterator[Line]:
    """What all workers wrote down; a last line that a kill cut short is none."""
    for path in sorted(folder.glob(f"{storm}.ledger-*")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield _decode(line)


class Truth:
    """What the file says: where each name stands."""

    def __init__(self, reader: Reader) -> None:
        self.runs: dict[str, Run] = {}
        self.steps: dict[str, list[Entry]] = {}
        self.signals: dict[str, list[Entry]] = {}
        self.results: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.events = {event.id: event.no for event in scan_events(reader)}
        self.entries = 0
        for run in scan_all(reader):
            self.runs[run.id] = run
            self._read(run, reader)

    def _read(self, run: Run, reader: Reader) -> None:
        keys: list[str] = []
        for entry in reader.entries(run.no, limit=1_000_000):
            self.entries += 1
            if entry.kind == "step.completed":
                self.steps.setdefault(msgspec.json.decode(entry.data)["result"], []).append(entry)
                keys.append(str(entry.key))
            elif entry.kind == "signal.received":
                self.signals.setdefault(msgspec.json.decode(entry.data)["payload"], []).append(entry)
            elif entry.kind == "run.completed":
                self.results[msgspec.json.decode(entry.data).get("result", "")] += 1
        assert keys == [f"step#{n}" for n in range(1, len(keys) + 1)], f"steps of {run.id}: {keys}"
        self.said.update(chunk.text for chunk in reader.output(run.no, limit=1_000_000))


def scan_events(reader: Reader) -> Iterator[Event]:
    after = 0
    while page := reader.scan_events(after=after):
        yield from page
        after = page[-1].no


def judge(folder: Path, storm: str, report: Report) -> None:
    """Each acknowledged command's effect is there once; each other's at most once."""
    with closing(durable(folder / "x.sqlite").reader()) as reader:
        truth = Truth(reader)
    report.entries = truth.entries
    for line in lines(folder, storm):
        report.commands += line.was == "intent"
        report.unanswered += 1 if line.was == "intent" else -1
        if line.was == "refused":
            report.refused[line.error] += 1
        report.longest_wait_ms = max(report.longest_wait_ms, line.wait_ms)
        report.longest_lock_ms = max(report.longest_lock_ms, line.lock_ms)
        problem = doubt(line, truth)
        assert problem is None, f"{problem}: {line}"


def doubt(line: Line, truth: Truth) -> str | None:
    """What is wrong with a line of a ledger."""
    done = line.was == "done"
    if line.what == "record":
        return place(line, truth.steps.get(line.name, []), done)
    if line.what == "signal":
        return place(line, truth.signals.get(line.name, []), done)
    if line.what == "finish":
        return times(truth.results[line.name], done)
    if line.what == "say":
        return times(truth.said[line.name], done)
    if done and line.what == "event" and line.name not in truth.events:
        return "an acknowledged event is not there"
    if done and line.run and line.run not in truth.runs:
        return "an acknowledged run is not there"
    return None


def place(line: Line, entries: list[Entry], done: bool) -> str | None:
    """An acknowledged entry stands where the answer said."""
    if done and entries and entries[0].seq != line.seq:
        return f"stands at {entries[0].seq}"
    return times(len(entries), done)


def times(count: int, done: bool) -> str | None:
    if count > 1:
        return f"is there {count} times"
    return "was acknowledged and is not there" if done and not count else None


def weather(folder: Path, storm: str, *, commands: int, every_s: float, freeze_s: float = 0, limit_s: float) -> Report:
    """A storm, and all that must be true after it."""
    path = folder / "x.sqlite"
    report = rage(folder, storm, commands=commands, every_s=every_s, freeze_s=freeze_s, limit_s=limit_s)
    judge(folder, storm, report)
    print(f"\n{report}")
    assert report.commands >= commands
    assert report.refused.keys() <= {"unknown", "ended", "stale", "unseen"}
    assert report.longest_wait_ms < WAIT_BOUND_MS
    assert report.longest_lock_ms < WAIT_BOUND_MS
    assert not offences(path)
    assert asyncio.run(finish_all(path)) > 0, "a storm that leaves nothing to finish shows nothing"
    assert not offences(path)
    return report


async def finish_all(path: Path) -> int:
    """A process of a later time: all leases are over, all parked runs get their signal; each open run is finished."""
    finished, until = 0, time.monotonic() + 20
    async with Engine(durable(path), settings=SETTINGS, clock_ms=lambda: wall_ms() + 600_000) as engine:
        parked = [run.id for run in await engine.read(open_runs) if run.status == "waiting"]
        await asyncio.gather(*(engine.submit(c.Signal(run_id, "go")) for run_id in parked))
        while left := await engine.read(open_runs):
            assert time.monotonic() < until, f"{len(left)} runs cannot be finished: {left[:3]}"
            got = await engine.submit(c.Claim("last", engine.secret(), limit=1_000))
            await asyncio.gather(*(engine.submit(c.Finish(task.lease, 1, c.Completed())) for task in got.tasks))
            finished += len(got.tasks)
            await asyncio.sleep(0.02)
    return finished


def open_runs(reader: Reader) -> list[Run]:
    return [run for run in scan_all(reader) if not run.terminal]

"""The end of a worker: what runs gets its time, the rest is handed back, and nothing is left behind."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from stepwell.model import commands as c

from .site import true
from .support import OK, group, house

#: A step that does not stop by itself, with a child in its group, both deaf for TERM.
STUBBORN = 'trap "" TERM\nsleep 60 &\necho $$ > "{pid}"\nwait; wait\nsleep 60\n'


def test_what_runs_ends_within_the_drain_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f'echo $$ > "{tmp_path}/pid"\nsleep 0.6\n{OK}')
            worker = it.work(slots=1)
            run_id = await it.one("e1")
            other = await it.one("e2")
            await it.pid()
            await worker.stop(drain_s=10)
            assert (await it.run(run_id)).status == "completed"
            assert (await it.run(other)).status == "queued"  # it claims nothing more
            assert await it.kinds(other) == ["run.created"]

    asyncio.run(main())


def test_the_rest_is_handed_back_and_its_whole_group_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            root = it.add(STUBBORN.format(pid=tmp_path / "pid"))
            worker = it.work()
            run_id = await it.one()
            pid = await it.pid()
            await true(lambda: len(group(pid)) == 2)
            started = time.monotonic()
            await worker.stop(drain_s=0.3)
            assert 0.3 + 0.4 <= time.monotonic() - started < 3  # the drain, then the grace before KILL
            assert group(pid) == []
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "attempt.ended:released"]
            assert (await it.task(run_id)).failures == 0
            (root / "exec/go.sh").write_text(f"#!/bin/sh\n{OK}")
            it.work()
            assert (await it.end(run_id)).status == "completed"

    asyncio.run(main())


def test_a_store_that_is_away_holds_up_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.worker.worker.HAND_BACK_S", 3.0)

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(STUBBORN.format(pid=tmp_path / "pid"))
            worker = it.work()
            run_id = await it.one()
            pid = await it.pid()
            it.away = (c.Release, c.Sync, c.Say)
            started = time.monotonic()
            await worker.stop(drain_s=0)
            assert time.monotonic() - started < 9, "its lease has 10 s"
            assert (worker.busy, group(pid)) == (0, [])
            assert (await it.run(run_id)).status == "running"

    asyncio.run(main())


class SlowLane:
    """Holds up the lane in front of a batch, for as long as a test wants."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def __call__(self, point: str) -> None:
        if point == "begun":
            self.open.wait(10)


def test_a_claim_that_is_under_way_at_the_end_is_handed_back(tmp_path: Path) -> None:
    """Else the lease stays, with nobody behind it, until it expires."""
    slow = SlowLane()

    async def main() -> None:
        async with house(tmp_path, fault=slow) as it:
            it.add(f'echo ran >> "{tmp_path}/log"\n{OK}')
            run_id = await it.one()
            slow.open.clear()
            worker = it.work()
            await asyncio.sleep(0.1)
            stopping = asyncio.create_task(worker.stop(drain_s=5))
            await asyncio.sleep(0.1)
            slow.open.set()
            await stopping
            task = await it.task(run_id)
            assert task.state == "ready", task
            assert not (tmp_path / "log").exists()

    asyncio.run(main())


def test_a_worker_can_be_stopped_while_the_engine_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.away = (c.Claim,)
            it.add(OK)
            worker = it.work()
            await asyncio.sleep(1.2)  # its pauses have grown
            started = time.monotonic()
            await worker.stop(drain_s=30)
            assert time.monotonic() - started < 0.5

    asyncio.run(main())

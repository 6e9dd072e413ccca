"""Concurrency keys: a step's own pool, one key at a time, nobody waits longer than it must."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from stepwell.model import commands as c

from .support import OK, QUICK, House, house

pytestmark = pytest.mark.stores("sqlite", "postgres")

KEYED = '[steps.concurrency]\nkey = "/payload/repo"\nlimit = {limit}'


def keyed(it: House, seconds: float, limit: int = 1) -> Path:
    """A flow whose step notes begin and end in a file, with its repo; answers that file."""
    log = it.cwd / "log"
    find = """repo=$(sed -n 's/.*"repo": "\\([a-z]*\\)".*/\\1/p')\n"""
    script = f'{find}echo "+ $repo" >> "{log}"; sleep {seconds}; echo "- $repo" >> "{log}"\n{OK}'
    it.add(script, KEYED.format(limit=limit))
    return log


def most(lines: list[str], repo: str = "") -> int:
    """The most steps at once, of one repo or of all."""
    running, seen = 0, 0
    for line in lines:
        if line.endswith(repo):
            running += 1 if line[0] == "+" else -1
            seen = max(seen, running)
    return seen


def test_one_key_never_overlaps_and_others_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            log = keyed(it, 0.1)
            runs = [await it.one(f"e{n}", {"repo": "abc"[n % 3]}) for n in range(12)]
            it.work(slots=8)
            for run_id in runs:
                assert (await it.end(run_id)).status == "completed"
            lines = log.read_text().splitlines()
            assert len(lines) == 24
            assert [most(lines, repo) for repo in "abc"] == [1, 1, 1]
            assert most(lines) == 3

    asyncio.run(main())


def test_a_limit_of_two_lets_two_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            log = keyed(it, 0.15, limit=2)
            runs = [await it.one(f"e{n}", {"repo": "a"}) for n in range(6)]
            it.work(slots=6)
            for run_id in runs:
                await it.end(run_id)
            assert most(log.read_text().splitlines()) == 2

    asyncio.run(main())


def test_two_workers_keep_to_one_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            log = keyed(it, 0.05)
            runs = [await it.one(f"e{n}", {"repo": "a"}) for n in range(8)]
            it.work(slots=4, name="a")
            it.work(slots=4, name="b")
            for run_id in runs:
                await it.end(run_id)
            assert most(log.read_text().splitlines()) == 1

    asyncio.run(main())


def test_each_step_counts_for_itself(tmp_path: Path) -> None:
    """Two flows with the same key: one at a time of each, and the one does not wait for the other."""

    async def main() -> None:
        async with house(tmp_path) as it:
            log = tmp_path / "log"
            for name in ("a", "b"):
                script = f'echo "+ {name}" >> "{log}"; sleep 0.15; echo "- {name}" >> "{log}"\n{OK}'
                it.add(script, KEYED.format(limit=1), flow=name)
            runs = [run_id for n in range(3) for run_id in await it.send(f"e{n}", {"repo": "x"})]
            it.work(slots=6)
            for run_id in runs:
                await it.end(run_id)
            lines = log.read_text().splitlines()
            assert [most(lines, name) for name in ("a", "b", "")] == [1, 1, 2]

    asyncio.run(main())


def test_a_blocked_one_goes_on_at_once_and_in_order(tmp_path: Path) -> None:
    """The poll is ten seconds: whoever waits for it does not get there."""

    async def main() -> None:
        async with house(tmp_path, settings=msgspec.structs.replace(QUICK, poll_ms=10_000)) as it:
            log = keyed(it, 0.05)
            it.work(slots=8)
            started = time.monotonic()
            runs = [await it.one(f"e{n}", {"repo": "a"}) for n in range(6)]
            for run_id in runs:
                await it.end(run_id)
            assert time.monotonic() - started < 4
            assert most(log.read_text().splitlines()) == 1
            begun = [(await it.view(run_id))["startedAt"] for run_id in runs]
            assert begun == sorted(begun)

    asyncio.run(main())


def test_who_is_blocked_says_so_and_others_pass(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            keyed(it, 30)
            it.work(slots=4)
            first = await it.one("e1", {"repo": "a"})
            await asyncio.sleep(0.2)
            second, other = await it.one("e2", {"repo": "a"}), await it.one("e3", {"repo": "b"})
            await asyncio.sleep(0.3)
            assert [(await it.task(run_id)).state for run_id in (first, second, other)] == [
                "leased", "blocked", "leased",
            ]  # fmt: skip
            assert "is full" in (await it.view(second))["why"]
            await it.engine.submit(c.Cancel(first))
            await it.end(first)
            number = (await it.run(second)).no
            assert await it.engine.wait_run(number, lambda run: run.status == "running", timeout_s=2)

    asyncio.run(main())

"""Slots, heartbeats, and leases that somebody else has."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.engine.clock import wall_ms
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unavailable
from stepwell.worker.worker import Worker

from .site import true
from .support import OK, QUICK, Time, alive, house

#: Puts `+` into a file at its begin and `-` at its end; both are single small appends.
COUNTED = 'printf + >> "LOG"; sleep 0.15; printf - >> "LOG"\n' + OK


def overlaps(log: str) -> list[int]:
    """How many were running after each begin and end."""
    running, seen = 0, []
    for char in log:
        running += 1 if char == "+" else -1
        seen.append(running)
    return seen


def test_never_more_than_the_slots_and_all_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            log = tmp_path / "log"
            it.add(COUNTED.replace("LOG", str(log)))
            runs = [await it.one(f"e{n}") for n in range(12)]
            worker = it.work(slots=3)
            busy: set[int] = set()
            while any([not (await it.run(run_id)).terminal for run_id in runs]):
                busy.add(worker.busy)
                await asyncio.sleep(0.01)
            assert {(await it.run(run_id)).status for run_id in runs} == {"completed"}
            seen = overlaps(log.read_text())
            assert (max(seen), max(busy), seen[-1]) == (3, 3, 0)

    asyncio.run(main())


def test_two_workers_share_what_there_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f"sleep 0.1\n{OK}")
            it.work(slots=2, name="a")
            it.work(slots=2, name="b")
            runs = [await it.one(f"e{n}") for n in range(8)]
            views = []
            for run_id in runs:
                assert (await it.end(run_id)).status == "completed"
                views.append(await it.view(run_id))
            assert all(len(view["attempts"]) == 1 for view in views)
            assert {view["attempts"][0]["worker"] for view in views} == {"a", "b"}

    asyncio.run(main())


@pytest.mark.parametrize("slots", [0, -1, 10_001])
def test_slots_have_bounds(tmp_path: Path, slots: int) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            with pytest.raises(Invalid) as refused:
                Worker(it.engine, {}, slots=slots)
            assert refused.value.hint

    asyncio.run(main())


def test_heartbeats_carry_a_step_over_many_leases(tmp_path: Path) -> None:
    """The store's clock runs 30 times as fast: a lease of 10 s is over in 333 ms, and the step takes five of them."""
    start = wall_ms()

    def fast() -> int:
        return start + (wall_ms() - start) * 30

    async def main() -> None:
        async with house(tmp_path, clock_ms=fast) as it:
            it.add(f"sleep 1.6\n{OK}")
            it.work()
            run_id = await it.one()
            assert (await it.end(run_id)).status == "completed"
            view = await it.view(run_id)
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]
            assert len(view["attempts"]) == 1
            assert it.engine.clock_ms() - start > 4 * QUICK.lease_ms

    asyncio.run(main())


def test_a_lease_that_is_lost_ends_the_process_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "stepwell.lane")
    clock = Time()
    settings = msgspec.structs.replace(QUICK, poll_ms=700)

    async def main() -> None:
        async with house(tmp_path, settings=settings, clock_ms=clock) as it:
            it.add(f'trap "" TERM\necho $$ > "{tmp_path}/pid"\nwhile :; do echo tick; sleep 0.02; done\n')
            worker = it.work(slots=1, name="loser")
            run_id = await it.one()
            pid = await it.pid()
            await it.said_until(run_id, "tick")
            clock.ahead_ms += 60_000  # the worker was away for a minute, say in a machine that slept
            stolen = await it.stolen()
            assert (stolen.run.id, stolen.attempt) == (run_id, 2)
            said = len(await it.output(run_id))
            await true(lambda: not alive(pid))
            await true(lambda: worker.busy == 0)
            done = await it.engine.submit(c.Finish(stolen.lease, 1, c.Completed('"the thief\'s"')))
            assert done.status == "completed"
            assert len(await it.output(run_id)) == said
            kinds = await it.kinds(run_id)
            assert kinds[2:] == ["attempt.ended:expired", "attempt.started", "run.completed"]
            assert (await it.run(run_id)).result == '"the thief\'s"'

    asyncio.run(main())


def test_leases_whose_answer_was_lost_are_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim was committed and its answer was not heard, more than once: the first attempts are the only ones."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(OK)
            runs = [await it.one(f"e{n}") for n in range(3)]
            submit, lost = it.engine.submit, list[c.Claim]()

            async def losing(command: c.Command) -> Any:
                reply = await submit(command)
                if isinstance(command, c.Claim) and len(lost) < 2:
                    lost.append(command)
                    raise Unavailable("the answer was lost")
                return reply

            monkeypatch.setattr(it.engine, "submit", losing)
            it.work(slots=2)
            for run_id in runs:
                assert (await it.end(run_id, 5)).status == "completed"
                assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]
            assert lost[0] == lost[1]

    asyncio.run(main())

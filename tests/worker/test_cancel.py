"""Cancel reaches the process; a cancel is never followed by another attempt."""

import asyncio
import time
from pathlib import Path

from stepwell.model import commands as c

from .site import true
from .support import OK, QUICK, Time, alive, group, house

SLOW = 'echo $$ > "{0}/pid"\nsleep 60 &\nwait\n'


def test_term_is_enough_for_a_step_that_listens(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add("trap 'echo told to stop; exit 0' TERM\n" + SLOW.format(tmp_path))
            it.work()
            run_id = await it.one()
            pid = await it.pid()
            state = await it.engine.submit(c.Cancel(run_id, by="test", reason="enough"))
            assert state.status == "running"  # it is asked, and it ends when its process has
            run = await it.end(run_id)
            assert run.status == "canceled"
            assert "told to stop\n" in await it.said(run_id)
            assert group(pid) == []
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "cancel.requested", "run.canceled"]

    asyncio.run(main())


def test_a_step_that_is_deaf_is_killed_after_the_grace(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add('trap "" TERM\n' + SLOW.format(tmp_path) + "wait; sleep 60\n", "[steps.retry]\nmax_attempts = 5")
            it.work()
            run_id = await it.one()
            pid = await it.pid()
            started = time.monotonic()
            await it.engine.submit(c.Cancel(run_id))
            assert (await it.end(run_id)).status == "canceled"
            assert QUICK.kill_grace_ms / 1_000 <= time.monotonic() - started < 3
            assert group(pid) == []

    asyncio.run(main())


def test_a_run_that_nobody_has_ends_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(OK)
            run_id = await it.one()
            assert (await it.engine.submit(c.Cancel(run_id))).status == "canceled"
            worker = it.work()
            await asyncio.sleep(0.2)
            assert worker.busy == 0
            assert await it.kinds(run_id) == ["run.created", "cancel.requested", "run.canceled"]

    asyncio.run(main())


def test_a_terminated_run_takes_its_process_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(SLOW.format(tmp_path))
            worker = it.work()
            run_id = await it.one()
            pid = await it.pid()
            assert (await it.engine.submit(c.Terminate(run_id))).status == "canceled"
            await true(lambda: not alive(pid) and worker.busy == 0)
            assert (await it.kinds(run_id))[-1] == "run.canceled"

    asyncio.run(main())


def test_a_step_that_was_canceled_and_handed_back_is_not_run_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f'echo ran >> "{tmp_path}/log"\n' + SLOW.format(tmp_path))
            worker = it.work()
            run_id = await it.one()
            await it.pid()
            await it.engine.submit(c.Cancel(run_id))
            await worker.stop(drain_s=0)
            it.work()
            assert (await it.end(run_id)).status == "canceled"
            assert (tmp_path / "log").read_text() == "ran\n"

    asyncio.run(main())


def test_a_step_whose_worker_died_after_the_cancel_is_not_run_again(tmp_path: Path) -> None:
    clock = Time()

    async def main() -> None:
        async with house(tmp_path, clock_ms=clock) as it:
            it.add(f'echo ran >> "{tmp_path}/log"\n{OK}')
            run_id = await it.one()
            await it.claim("one that dies")
            await it.engine.submit(c.Cancel(run_id))
            clock.ahead_ms += QUICK.lease_ms + 1_000
            await it.engine.submit(c.Sweep())
            it.work()
            assert (await it.end(run_id)).status == "canceled"
            assert not (tmp_path / "log").exists()

    asyncio.run(main())

"""A step never outlives its lease: another worker may begin the next attempt then, and the two must not overlap."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.clock import steady_s
from stepwell.flows.executors.guard import Guard
from stepwell.model import commands as c
from stepwell.worker import claims as claims_module
from tests.support import durable_url

from .site import true
from .support import QUICK, alive, group, house, state

SLOW = 'echo $$ > "{0}/pid"\nsleep 60 &\nwait\n'
#: As if the answer to each request had been under way for so long: a lease of 10 s has 2.5 s left when it is heard of.
LATE_S = 7.5

#: As if stopped when it has looked at its clock for the last time, and is about to fork.
STOPS = """
import os, signal
from stepwell.flows.executors import direct
start = direct._start
def stopped(*asked):
    os.kill(os.getpid(), signal.SIGSTOP)
    return start(*asked)
direct._start = stopped
"""
#: A worker whose leases are nearly over, on the house that is in the working directory.
OWNER = """
import asyncio, pathlib, sys
from stepwell.engine.clock import steady_s
from stepwell.model.settings import Settings
from stepwell.worker import claims
from stepwell.worker.local import open_local
claims.steady_s = lambda: steady_s() - {late}
async def main():
    settings = Settings(lease_ms=10_000, poll_ms=60_000, kill_grace_ms=400)
    async with open_local(sys.argv[1], pathlib.Path.cwd(), settings=settings, slots=1, roles=False):
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_store_that_does_not_answer_stops_the_step_before_its_lease_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "steady_s", lambda: steady_s() - LATE_S)

    async def main() -> None:
        async with house(tmp_path) as it:
            submit = it.engine.lanes.submit

            def hangs(command: c.Command, *rest: Any) -> None:
                if not isinstance(command, c.Sync):
                    submit(command, *rest)

            monkeypatch.setattr(it.engine.lanes, "submit", hangs)
            it.add("trap 'exit 0' TERM\n" + SLOW.format(tmp_path))
            run_id = await it.one()
            begun = time.monotonic()
            worker = it.work()
            pid = await it.pid()
            await true(lambda: worker.busy == 0)
            assert time.monotonic() - begun < 10 - LATE_S, "the lease was over"
            assert group(pid) == []
            assert (await it.run(run_id)).status == "running", "who has no lease writes nothing"

    asyncio.run(main())


def test_a_worker_that_is_stopped_for_longer_than_its_lease_has_no_step_any_more(tmp_path: Path) -> None:
    """SIGSTOP, as by a debugger or a frozen container: it can end nothing, and must not go on after it."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add('trap "" TERM\n' + SLOW.format(tmp_path) + "wait; sleep 60\n")
            run_id = await it.one()
        code = OWNER.format(late=LATE_S)
        owner = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, durable_url(tmp_path / "house.sqlite"), cwd=tmp_path
        )
        try:
            pid = await it.pid()
            owner.send_signal(signal.SIGSTOP)
            await true(lambda: not alive(pid) and group(pid) == [])
            assert owner.returncode is None
            owner.send_signal(signal.SIGCONT)
            async with house(tmp_path, settings=QUICK) as again:
                await asyncio.sleep(0.5)
                assert await again.kinds(run_id) == ["run.created", "attempt.started"]
        finally:
            owner.kill()
            await owner.wait()

    asyncio.run(main())


def test_a_worker_that_is_stopped_before_it_begins_a_step_does_not_begin_it_after_its_lease(tmp_path: Path) -> None:
    """A step can be over before anybody kills it, so it must not begin."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f"echo $$ >> {tmp_path}/began\n")
            run_id = await it.one()
        code = STOPS + OWNER.format(late=LATE_S)
        environ = {**os.environ, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
        owner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, durable_url(tmp_path / "house.sqlite")),
            cwd=tmp_path,
            env=environ,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await true(lambda: state(owner.pid) == "T")
            await true(lambda: not [*tmp_path.glob("stepwell-*")])
            owner.send_signal(signal.SIGCONT)
            assert owner.stderr is not None
            async with asyncio.timeout(10):
                assert b"is over" in await owner.stderr.readline()
            assert not (tmp_path / "began").exists()
            assert owner.returncode is None
            async with house(tmp_path, settings=QUICK) as again:
                assert await again.kinds(run_id) == ["run.created", "attempt.started"]
        finally:
            owner.kill()
            await owner.wait()

    asyncio.run(main())


def test_a_step_that_finds_its_way_gone_under_a_good_lease_is_handed_back_and_begins_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the guard heard of the longer lease too late, or somebody tidied up."""
    made, link = list[Path](), Guard.link

    def swept(guard: Guard, mark: str, folder: Path) -> Path | None:
        made.append(link(guard, mark, folder) or folder)
        if len(made) == 1:
            made[0].unlink()
        return made[-1]

    monkeypatch.setattr(Guard, "link", swept)

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add('echo \'FLOW_RESULT {"status":"completed"}\'\n')
            run_id = await it.one()
            it.work()
            assert (await it.end(run_id)).status == "completed"
            kinds = ["run.created", "attempt.started", "attempt.ended:released", "attempt.started"]
            assert (await it.kinds(run_id))[:4] == kinds
            assert len(made) == 2

    asyncio.run(main())

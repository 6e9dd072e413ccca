"""Background roles: bounded waits, hints that are not lost, and failures that end nothing."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.engine import Engine
from stepwell.engine.roles import LONGEST_SOON_S, SOON_S, Promoter, Repeater, Role, Timekeeper, Watcher
from stepwell.model import commands as c
from stepwell.model.errors import Internal, Unavailable
from stepwell.model.settings import Settings
from tests.support import Clock, durable


class Desk:
    """Takes commands and answers as it is told."""

    def __init__(self, *replies: Any) -> None:
        self.sent: list[c.Command] = []
        self.replies = list(replies)
        self.heard = asyncio.Event()

    async def __call__(self, command: c.Command) -> Any:
        self.sent.append(command)
        self.heard.set()
        reply = self.replies.pop(0) if self.replies else c.Worked(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def have(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self.heard.clear()
                await self.heard.wait()


def test_a_repeater_asks_soon_for_what_others_have_just_now() -> None:
    async def main() -> None:
        desk = Desk(*(c.Worked(1, soon=True) for _ in range(4)), c.Worked(1))
        role = Repeater("r", desk, c.Deliver(), wait_s=60)
        waits = [await role.work() for _ in range(6)]
        assert waits == [SOON_S, 2 * SOON_S, 4 * SOON_S, 8 * SOON_S, 60, 60]
        assert len(desk.sent) == 6

    asyncio.run(main())


def test_a_timekeeper_does_not_spin_while_others_have_what_is_due() -> None:
    async def main() -> None:
        due = 900

        async def next_due() -> int | None:
            return due

        role = Timekeeper(Desk(), next_due, lambda: 1_000, wait_s=60)
        assert [await role.work() for _ in range(8)] == [SOON_S * 2**n for n in range(5)] + [LONGEST_SOON_S] * 3
        due = 1_500
        assert await role.work() == 0.5
        due = 900
        assert await role.work() == SOON_S

    asyncio.run(main())


def test_a_repeater_goes_on_until_there_is_no_more_and_then_waits() -> None:
    async def main() -> None:
        desk = Desk(c.Worked(5, more=True), c.Worked(5, more=True), c.Worked(1))
        role = Repeater("r", desk, c.Deliver(), wait_s=60)
        role.start()
        await desk.have(3)
        await asyncio.sleep(0.02)
        assert len(desk.sent) == 3
        role.hint()
        await desk.have(4)
        await role.stop()
        await role.stop()

    asyncio.run(main())


def test_a_repeater_polls_without_hints() -> None:
    async def main() -> None:
        desk = Desk()
        role = Repeater("r", desk, c.Sweep(), wait_s=0.01)
        role.start()
        await desk.have(5)
        await role.stop()

    asyncio.run(main())


@pytest.mark.parametrize("failure", [Unavailable("busy"), Internal("a bug")])
def test_a_refusal_does_not_end_a_role(failure: Exception) -> None:
    async def main() -> None:
        desk = Desk(failure, failure)
        role = Repeater("r", desk, c.Sweep(), wait_s=0.01)
        role.start()
        await desk.have(4)
        await role.stop()

    asyncio.run(main())


@pytest.mark.parametrize("wait_s", [0, -1.0])
def test_a_role_waits_for_a_time(wait_s: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Role(wait_s=wait_s)


def test_a_timer_that_is_set_while_the_timekeeper_looks_is_not_missed() -> None:
    async def main() -> None:
        clock, desk = Clock(), Desk()
        due: list[int | None] = [clock.now - 50, None]
        looks = 0

        async def next_due() -> int | None:
            nonlocal looks
            looks += 1
            found = due.pop(0) if due else None
            if looks == 2:  # the store has been read, and then somebody commits a timer
                keeper.due(clock.now + 20)
                due.append(clock.now + 20)
            return found

        keeper = Timekeeper(desk, next_due, clock, wait_s=60)
        keeper.start()
        await desk.have(3)
        await keeper.stop()

    asyncio.run(main())


def test_the_timekeeper_sleeps_until_the_next_timer_or_an_earlier_one() -> None:
    async def main() -> None:
        clock, desk = Clock(), Desk()
        due = [clock.now + 60_000]

        async def next_due() -> int | None:
            return due[0]

        keeper = Timekeeper(desk, next_due, clock, wait_s=60)
        keeper.start()
        await desk.have(1)
        await asyncio.sleep(0.02)
        keeper.due(clock.now + 70_000)
        await asyncio.sleep(0.02)
        assert len(desk.sent) == 1, "a later timer changes nothing"
        due[0] = clock.now + 30
        keeper.due(due[0])
        await desk.have(3)
        await keeper.stop()

    asyncio.run(main())


FOREIGN = (sqlite3.OperationalError("disk I/O error"), KeyError("x"), RuntimeError("not ours"))


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["repeater", "promoter", "timekeeper", "watcher"])
def test_a_role_outlives_what_is_not_ours(kind: str, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        desk, clock, changes = Desk(error, error), Clock(), list[int]()
        failing = Desk(error, error)

        async def next_due() -> int | None:
            await failing(c.Fire())
            return None

        async def others() -> int:
            await failing(c.Fire())
            return len(failing.sent)

        roles: dict[str, Role] = {
            "repeater": Repeater("r", desk, c.Sweep(), wait_s=0.005),
            "promoter": Promoter(desk, wait_s=0.005),
            "timekeeper": Timekeeper(Desk(), next_due, clock, wait_s=0.005),
            "watcher": Watcher(lambda: len(failing.sent), others, lambda: changes.append(1), wait_s=0.005),
        }
        role, seen = roles[kind], desk if kind in ("repeater", "promoter") else failing
        role.start()
        await seen.have(5)
        await role.stop()
        assert bool(changes) == (kind == "watcher")

    asyncio.run(main())
    assert "goes on after an error" in caplog.text


def test_a_watcher_that_could_not_look_looks_again() -> None:
    async def main() -> None:
        heads, hints = Desk(3, sqlite3.OperationalError("disk I/O error"), 5), asyncio.Event()
        versions = [1]

        async def others() -> int:
            return int(await heads(c.Fire()))

        watcher = Watcher(lambda: versions[0], others, hints.set, wait_s=0.005)
        watcher.start()
        await heads.have(1)
        versions[0] = 2
        await asyncio.wait_for(hints.wait(), 5)
        await watcher.stop()

    asyncio.run(main())


def test_the_promoter_looks_at_everything_now_and_then_however_many_hints_come() -> None:
    async def main() -> None:
        desk = Desk()
        promoter = Promoter(desk, wait_s=0.05)
        promoter.start()
        for _ in range(100):
            promoter.freed([("main", "p", "k")])
            await asyncio.sleep(0.005)
        await promoter.stop()
        looks = [command for command in desk.sent if isinstance(command, c.Promote) and not command.keys]
        assert 4 <= len(looks) <= 25
        assert len(desk.sent) > len(looks) + 10, "hints are answered at once"

    asyncio.run(main())


def test_the_promoter_comes_again_soon_for_keys_whose_runs_others_have() -> None:
    async def main() -> None:
        key, other = ("main", "p", "k"), ("main", "p", "other")
        desk = Desk(c.Worked(0), c.Worked(1, left=(key,)), Unavailable("away"), c.Worked(1))
        promoter = Promoter(desk, wait_s=60)
        promoter.start()
        await desk.have(1)
        promoter.freed([key, ("main", "p", "done")])
        await desk.have(3)
        promoter.freed([other])
        await desk.have(4)
        await promoter.stop()
        promotions = [set(command.keys) for command in desk.sent if isinstance(command, c.Promote)]
        assert promotions == [set(), {key, ("main", "p", "done")}, {key}, {key, other}]

    asyncio.run(main())


def test_the_promoter_comes_again_soon_for_what_a_look_left_and_the_look_goes_on() -> None:
    async def main() -> None:
        left, last = ("main", "p", "a"), ("main", "p", "k")
        desk = Desk(c.Worked(0, left=(left,), after=last), *(c.Worked(0, left=(left,)) for _ in range(4)), c.Worked(1))
        promoter = Promoter(desk, wait_s=60)
        waits = [await promoter.work() for _ in range(7)]
        promotions = [command.keys for command in desk.sent if isinstance(command, c.Promote)]
        assert promotions == [(), *[(left,)] * 5]
        assert waits == [SOON_S, 2 * SOON_S, 4 * SOON_S, 8 * SOON_S, 16 * SOON_S, 60, 60]

    asyncio.run(main())


def test_the_promoter_goes_on_where_its_last_look_ended() -> None:
    async def main() -> None:
        desk = Desk(c.Worked(0, after=("main", "p", "k")), c.Worked(0))
        promoter = Promoter(desk, wait_s=0.005)
        promoter.start()
        await desk.have(3)
        await promoter.stop()
        afters = [command.after for command in desk.sent if isinstance(command, c.Promote)]
        assert afters[:3] == [("", "", ""), ("main", "p", "k"), ("", "", "")]

    asyncio.run(main())


class Stubborn(Role):
    """Turns a cancel into an error of its own, as code that was told to stop at a bad moment may do."""

    def __init__(self) -> None:
        super().__init__(wait_s=60)
        self.working = asyncio.Event()

    async def work(self) -> float:
        self.working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("interrupted") from None
        return self.wait_s


def test_a_role_stops_also_when_its_work_swallows_the_cancel() -> None:
    async def main() -> None:
        role = Stubborn()
        role.start()
        await role.working.wait()
        async with asyncio.timeout(5):
            await role.stop()

    asyncio.run(main())


def test_a_role_that_keeps_failing_shows_the_stack_once_and_tries_ever_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> int:
        tries = 0

        class Broken(Role):
            name = "broken"

            async def work(self) -> float:
                nonlocal tries
                tries += 1
                raise ValueError("out of order")

        role = Broken(wait_s=0.01)
        role.start()
        await asyncio.sleep(0.5)
        await role.stop()
        return tries

    assert 3 <= asyncio.run(main()) <= 8, "10, 20, 40, 80, 160, 320 ms"
    assert caplog.text.count("Traceback") == 1


def test_own_commits_however_many_are_no_news_to_the_watcher(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s.sqlite"
        settings = Settings(poll_ms=10)
        async with Engine(durable(path, sync="normal"), settings=settings) as engine:
            await engine.submit(c.StartRun("first", "wf"))
            told = asyncio.Event()
            watcher = next(role for role in engine._roles if isinstance(role, Watcher))
            watcher._on_change = told.set
            for number in range(500):
                await engine.submit(c.StartRun(f"r{number}", "wf"))
            assert not told.is_set()
            async with Engine(durable(path, sync="normal"), roles=False) as other:
                await other.submit(c.StartRun("other", "wf"))
            await asyncio.wait_for(told.wait(), 5)

    asyncio.run(main())

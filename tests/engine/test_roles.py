"""Background roles: bounded waits, hints that are not lost, and failures that end nothing."""

import asyncio
from typing import Any

import pytest

from stepwell.engine.roles import Repeater, Role, Timekeeper
from stepwell.model import commands as c
from stepwell.model.errors import Internal, Unavailable
from tests.support import Clock


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

"""A store that is away for a while, as a server is that is started again: told to whom it concerns, and then over."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.away import LONGEST_S, pause_s
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Broken, Unknowable
from tests.support import assert_lawful

from .faulty import FaultySession, FaultyStore, wait_until


class Server:
    """A store whose sessions fail in `acts` while it is `away`, with `error`."""

    def __init__(self, folder: Path, *acts: str, error: type[Exception] = Broken) -> None:
        self.away, self._acts, self._error = False, acts, error
        self.asked = 0
        self.store = HealingStore(folder, self._plan)

    def _plan(self, act: str, unit: Any) -> None:
        if self.away and act in self._acts:
            self.asked += 1
            raise self._error("the server is shut down")


class HealingStore(FaultyStore):
    def session(self, lane: str) -> FaultySession:
        super().session(lane)
        session = self.sessions[-1]
        session.heals = True
        return session


async def until(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, true)


def start(name: str) -> c.StartRun:
    return c.StartRun(name, "wf")


@pytest.mark.parametrize("act", ["begin", "flush"])
def test_a_store_that_is_away_for_a_moment_is_waited_for(tmp_path: Path, act: str) -> None:
    server = Server(tmp_path, act)

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            server.away = True
            answer = asyncio.ensure_future(engine.submit(start("r")))
            await until(lambda: engine.trouble is not None)
            assert "shut down" in (engine.trouble or "")
            assert engine.stopped is None, "nobody has to start anything again"
            server.away = False
            assert (await answer).created
            assert engine.trouble is None
        assert_lawful(server.store)

    asyncio.run(main())


def test_who_waits_too_long_is_told_and_the_lane_goes_on_by_itself(tmp_path: Path) -> None:
    server = Server(tmp_path, "begin")

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            server.away = True
            with pytest.raises(Unavailable, match="shut down") as caught:
                await engine.submit(start("r"))
            assert "again" in caught.value.hint
            tries = server.asked
            with pytest.raises(Unavailable, match="away: the server is shut down"):
                await engine.submit(start("queued"))
            assert server.asked <= tries + 2, "each command does not begin from the start"
            server.away = False
            await until(lambda: engine.trouble is None)
            assert (await engine.submit(start("r"))).created
        assert_lawful(server.store)

    asyncio.run(main())


def test_what_waits_is_bounded_while_the_store_is_away(tmp_path: Path) -> None:
    server = Server(tmp_path, "begin")

    async def main() -> None:
        async with Engine(server.store, settings=Settings(queue_commands=3), roles=False) as engine:
            server.away = True
            first = asyncio.ensure_future(engine.submit(start("first")))
            await until(lambda: engine.trouble is not None)
            queued = [asyncio.ensure_future(engine.submit(start(f"r{n}"))) for n in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="3 commands wait already"):
                await engine.submit(start("one too many"))
            server.away = False
            assert all(one.created for one in await asyncio.gather(first, *queued))

    asyncio.run(main())


def test_closing_does_not_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    server = Server(tmp_path, "begin")

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            server.away = True
            answers = [asyncio.ensure_future(engine.submit(start(f"r{n}"))) for n in range(3)]
            await until(lambda: engine.trouble is not None)
            async with asyncio.timeout(1):
                await engine.close()
            replies = await asyncio.gather(*answers, return_exceptions=True)
            assert {type(reply) for reply in replies} == {Unavailable}

    asyncio.run(main())


@pytest.mark.parametrize("happens", [True, False])
def test_a_lost_answer_is_asked_for_until_the_store_is_back_and_told_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: bool
) -> None:
    server, away, asked = Server(tmp_path), [True], [0]
    plain = FaultySession.committed

    def committed(session: FaultySession) -> bool:
        asked[0] += 1
        if away[0]:
            raise OSError("connection refused")
        return plain(session)

    monkeypatch.setattr(FaultySession, "committed", committed)

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            number = (await engine.submit(start("r"))).run_no
            with engine.run_hint(number) as hint:
                server.store.sessions[0].lost = ("after" if happens else "before",)
                answer = asyncio.ensure_future(engine.submit(c.Signal("r", "s")))
                await until(lambda: asked[0] > 2)
                assert "lost" in (engine.trouble or "")
                assert not answer.done(), "nobody knows yet"
                assert not hint.is_set()
                away[0] = False
                assert (await answer).seq == 2
                assert hint.is_set(), "who waits is told as ever"
            assert engine.trouble is None
            assert [one.kind for one in await engine.read(lambda r: r.entries(1))] == ["run.created", "signal.received"]
        assert_lawful(server.store)

    asyncio.run(main())


def test_when_nobody_can_know_the_caller_is_told_so_and_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    monkeypatch.setattr("stepwell.engine.lane.ASKED", 3)
    monkeypatch.setattr(FaultySession, "committed", refused)

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            server.store.sessions[0].lost = ("after",)
            with pytest.raises(Unavailable, match="answer to a commit was lost") as caught:
                await engine.submit(start("r"))
            assert "same id" in caught.value.hint
            await until(lambda: engine.trouble is None)
            assert not (await engine.submit(start("r"))).created, "it had happened"
        assert_lawful(server.store)

    asyncio.run(main())


def refused(session: FaultySession) -> bool:
    raise OSError("connection refused")


def test_a_commit_that_never_happens_does_not_stop_a_store_that_heals(tmp_path: Path) -> None:
    server = Server(tmp_path, "commit", error=Unknowable)

    async def main() -> None:
        async with Engine(server.store, roles=False) as engine:
            server.away = True
            with pytest.raises(Unavailable, match="lost"):
                await engine.submit(start("r"))
            server.away = False
            assert (await engine.submit(start("r"))).created
            assert engine.trouble is None

    asyncio.run(main())


def test_lanes_come_back_at_different_times_and_wait_ever_longer() -> None:
    pauses = [pause_s(tries, "lane") for tries in range(10)]
    assert pauses[0] < 0.06
    assert all(LONGEST_S / 2 <= pause <= LONGEST_S for pause in pauses[7:])
    assert len({pause_s(20, f"lane {number}") for number in range(10)}) == 10

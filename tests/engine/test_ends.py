"""Runs that ended a moment ago: what is remembered, for how long, and when silence means that nothing has ended."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.clock import steady_s
from stepwell.engine.ends import KEPT_CHARS, Ends, kept
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.rows import Run
from stepwell.model.settings import Settings
from stepwell.store.port import Store
from tests.support import STORES

SLOW = Settings(poll_ms=60_000)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def row(no: int, **fields: Any) -> Run:
    return Run(no, "main", f"r{no}", status="completed", **fields)


def ended(ends: Ends, *numbers: int) -> None:
    ends.saw(frozenset(numbers), {no: row(no) for no in numbers})


def test_an_end_is_remembered_until_a_later_commit_touches_the_run() -> None:
    ends = Ends()
    ended(ends, 1, 2)
    assert ends.get(1) == row(1)
    ends.saw(frozenset({1}), {})
    assert (ends.get(1), ends.get(2)) == (None, row(2))


def test_what_an_earlier_commit_says_later_hides_no_end_and_makes_none() -> None:
    ends = Ends()
    ended(ends, 1)
    ends.saw(frozenset({1}), {})
    assert not ends.silent_on(1, steady_s()), "it has ended, whatever else touched it"
    ends.saw(frozenset({2}), {}, {2: 2})
    ended(ends, 2)
    assert ends.get(2) is None, "it was restarted after that end"
    again = row(2, generation=2)
    ends.saw(frozenset({2}), {2: again})
    assert ends.get(2) == again


def test_what_is_dropped_ends_the_time_that_it_knows_all_about() -> None:
    time = Time()
    ends = Ends(clock=time, most=2, kept_s=5)
    assert not ends.silent_on(1, 100.0)
    assert ends.silent_on(1, 100.1)
    time.now = 101
    ended(ends, 1)
    time.now = 102
    ended(ends, 2, 3)
    assert ends.get(1) is None
    assert (ends.silent_on(9, 101.0), ends.silent_on(9, 101.1)) == (False, True)
    assert not ends.silent_on(3, 101.1)
    time.now = 107.5
    ended(ends, 4)
    assert (ends.get(2), ends.get(3), ends.get(4)) == (None, None, row(4))
    assert (ends.silent_on(9, 102.0), ends.silent_on(9, 102.1)) == (False, True)


def test_when_others_have_committed_nothing_is_known() -> None:
    time = Time()
    ends = Ends(clock=time)
    ended(ends, 1)
    time.now = 101
    ends.forget()
    assert ends.get(1) is None
    assert (ends.silent_on(1, 100.5), ends.silent_on(1, 101.5)) == (False, True)


def test_large_rows_and_rows_with_payload_elsewhere_are_known_to_have_ended_and_no_more() -> None:
    assert kept(row(1, result="x" * KEPT_CHARS)) is not None
    assert kept(row(1, result="x" * KEPT_CHARS, input="1")) is None
    for field in ("input", "result", "error"):
        assert kept(row(1, **{field: "@abc"})) is None
    ends = Ends()
    ends.saw(frozenset({1}), {1: None})
    assert ends.get(1) is None
    assert not ends.silent_on(1, steady_s() + 1)


#: Stores that two engines may have open at once.
SHARED = pytest.mark.parametrize("made", [STORES["sqlite"], STORES["postgres"]], ids=["sqlite", "postgres"])


class Counting(Engine):
    """An engine that counts its reads, but for those of its roles."""

    reads = 0

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        task = asyncio.current_task()
        self.reads += task is None or not task.get_name().startswith("stepwell-")
        return await super().read(*args, **kwargs)


async def begun(engine: Engine, name: str = "r") -> tuple[float, c.Leased]:
    since = steady_s()
    await engine.submit(c.StartRun(name, "wf"))
    (task,) = (await engine.submit(c.Claim("w", engine.secret()))).tasks
    return since, task


@pytest.mark.parametrize("made", STORES.values(), ids=STORES)
def test_whoever_knows_that_a_run_is_new_reads_nothing_before_or_after_its_end(
    made: Callable[[Path], Store], tmp_path: Path
) -> None:
    async def main() -> None:
        async with Counting(made(tmp_path), settings=SLOW) as engine:
            since, task = await begun(engine)
            number = task.run.no
            waiting = asyncio.create_task(engine.wait_end(number, since=since))
            await asyncio.sleep(0)
            before = engine.reads
            await engine.submit(c.Finish(task.lease, 1, c.Completed("7")))
            run = await waiting
            assert run == await engine.wait_end(number) == await engine.wait_end(number, since=since)
            assert engine.reads == before
            assert run is not None
            assert (run.status, run.result) == ("completed", "7")
            assert run == await engine.read(lambda reader: reader.run_by_no(number))

    asyncio.run(main())


@pytest.mark.parametrize("made", STORES.values(), ids=STORES)
@pytest.mark.parametrize("size", [KEPT_CHARS, 100_000])
def test_a_large_result_is_read_whole(made: Callable[[Path], Store], tmp_path: Path, size: int) -> None:
    async def main() -> None:
        async with Engine(made(tmp_path), settings=SLOW) as engine:
            since, task = await begun(engine)
            result = '"' + "x" * size + '"'
            waiting = asyncio.create_task(engine.wait_end(task.run.no, since=since))
            await asyncio.sleep(0)
            await engine.submit(c.Finish(task.lease, 1, c.Completed(result)))
            for run in (await waiting, await engine.wait_end(task.run.no, since=since)):
                assert run is not None
                assert run.result == result

    asyncio.run(main())


@pytest.mark.parametrize("made", STORES.values(), ids=STORES)
def test_a_run_that_was_restarted_has_not_ended(made: Callable[[Path], Store], tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(made(tmp_path), settings=SLOW) as engine:
            since, task = await begun(engine)
            await engine.submit(c.Finish(task.lease, 1, c.Completed("1")))
            await engine.submit(c.Restart("r"))
            waiting = asyncio.create_task(engine.wait_end(task.run.no, since=since))
            (again,) = (await engine.submit(c.Claim("w", engine.secret()))).tasks
            await engine.submit(c.Finish(again.lease, 1, c.Completed("2")))
            run = await asyncio.wait_for(waiting, 5)
            assert run is not None
            assert run.result == "2"

    asyncio.run(main())


@SHARED
def test_ends_that_others_commit_are_seen_and_what_was_known_before_is_not_trusted(
    made: Callable[[Path], Store], tmp_path: Path
) -> None:
    async def main() -> None:
        async with Engine(made(tmp_path), settings=SLOW) as one, Engine(made(tmp_path), settings=SLOW) as two:
            since, task = await begun(one)
            waiting = asyncio.create_task(one.wait_end(task.run.no, since=since))
            hint = two.ready_hint()
            await two.submit(c.Finish(task.lease, 1, c.Completed("1")))
            run = await asyncio.wait_for(waiting, 5)
            assert run is not None
            assert run.result == "1"
            assert (await two.wait_end(task.run.no)) == run
            hint.clear()
            await one.submit(c.Restart("r"))
            await asyncio.wait_for(hint.wait(), 5)
            with pytest.raises(TimeoutError):
                await two.wait_end(task.run.no, since=since, timeout_s=0.05)

    asyncio.run(main())


@SHARED
def test_without_roles_nobody_says_that_others_have_committed_so_nothing_is_remembered(
    made: Callable[[Path], Store], tmp_path: Path
) -> None:
    async def main() -> None:
        quick = Settings(poll_ms=20)
        async with (
            Engine(made(tmp_path), settings=quick, roles=False) as one,
            Engine(made(tmp_path), settings=quick, roles=False) as two,
        ):
            since, task = await begun(one)
            await one.submit(c.Finish(task.lease, 1, c.Completed("1")))
            await two.submit(c.Restart("r"))
            with pytest.raises(TimeoutError):
                await one.wait_end(task.run.no, since=since, timeout_s=0.1)

    asyncio.run(main())
